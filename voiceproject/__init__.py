"""The frame that both apps stand in: settings, errors, jobs, commands, audio."""

__version__ = "0.1.0"
