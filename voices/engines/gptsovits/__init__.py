"""GPT-SoVITS (https://github.com/RVC-Boss/GPT-SoVITS) over HTTP, through one or several servers.

`configured` is what the setting VOICE_ENGINES names: the `engine` with the product's settings and the leases of its
database. `synthesis` speaks one request, sentence by sentence; `fleet` knows the servers and whose turn it is on which.
`api_v2` and `own_server` are the two ways to talk to a server (`protocol` says what both do), over the HTTP of
`servers`. `references`, `speech` and `languages` check and prepare what goes in and comes out.
"""
