"""Lexicons of tenants: which words are said how. `stored` keeps them, in versions, and finds those of a request;
`entries` checks what comes in, `pls` reads and writes W3C's format. `api` is /api/v1/voice/lexicons.
"""
