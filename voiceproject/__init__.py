"""The frame that both apps stand in. CONTRIBUTING.md says what lives in which of its rooms."""

__version__ = "0.1.0"
