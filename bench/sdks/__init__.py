"""The clients that people have, as they are on PyPI and npm, against a live server. `python -m bench.sdks`."""
