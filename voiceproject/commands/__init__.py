"""Operators' commands (separation, conversion).

`template` makes an argument list and an environment from an operator's command line, `runner` runs it under a guard
process (`guard`), `output` reads what it writes, `scratch` keeps its folders, `resident` keeps scripts that serve job
after job (`resident_child` is one of them).

Imports neither Django nor settings: whoever runs a command passes what it needs."""
