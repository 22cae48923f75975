"""Saved voices.

`saved` makes, changes and ends a voice; `selection` finds the one that a request names and gives an engine what it
needs of it. `recordings` checks uploaded samples, `quality` measures them, `reference_audio` joins them to the file
that engines hear, `engine_data` keeps what engines compute of it, `consents` records who agreed. `references` remembers
references that were decoded a moment ago, saved or not. `api` and `serializers` are /api/v1/voice/voices.
"""
