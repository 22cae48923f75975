"""The web server: connections, bodies and answers are coroutines, views run in a pool of threads.

`serving` is the configuration of gunicorn and uvicorn, `connection` reads heads and ends who stalls, `bodies` reads
bodies, `edge` is the ASGI application around Django, `websockets` serves the routes that apps register.
"""

EXTENSION = "voiceproject.connection"  # where a scope has its Connection
