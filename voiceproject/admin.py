"""Where Django looks for an app's console pages."""

from voiceproject.console import admin  # noqa: F401
