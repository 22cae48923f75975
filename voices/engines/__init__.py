"""Speech engines. Each is a module or package here, with a class that has the methods of `interface.Engine`.

`interface` says what an engine takes and gives. `builtin` speaks on the CPU, `gptsovits` through GPT-SoVITS servers.
`configured` gives the one that the setting VOICE_ENGINE names; it and `gptsovits.configured` know the database, and
nothing else in this package does, since engines also run in child processes.

To add an engine: a module here, its class in the setting VOICE_ENGINES, a test in tests/engines.
"""
