"""GPT-SoVITS for the scripts `gptsovits_*.py`, in the engine's own interpreter.

`process`: what it needs of the process it runs in; `weights`: which models there are; `references`: what voices it
takes; `runtime`: it, loaded, with all its failures told; `cover`: a vocal sung by it (gptsovits_infer.py); `orders`,
`worker` and `service`: it over HTTP (gptsovits_server.py).
"""
