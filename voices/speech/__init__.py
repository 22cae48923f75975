"""Synthesis: from a request to stored audio, whole, as a stream, or by a worker.

`synthesis` speaks one, `tasks` has the workers' actor, `registry` knows which models there are. `views` and
`serializers` are /api/v1/voice; `consumers` has what clients do with jobs of every kind.
"""
