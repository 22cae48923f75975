"""Operators' commands (separation, conversion): templates, the runner, its guard process, resident scripts.

Imports neither Django nor settings: whoever runs a command passes what it needs."""
