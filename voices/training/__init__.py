"""Voices that are trained on minutes of speech, as jobs.

`models` has the job and its recordings, `submission` what a request brings, `api` the routes, `dataset` the check of
the recordings before any second of a GPU, `pipeline` the stages, `checkpoints` what another host goes on from,
`published` the model that comes of it. The training itself is done by scripts of gpu_scripts/, in the engine's
interpreter. What is made is a model of its tenant: voices.speech.models.EngineModel with an owner.
"""
