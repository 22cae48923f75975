"""What audio is and where files are.

`uploads` opens what people send (`content_type` says what it is, `decoder` is the child process for containers),
`voice` reads a recording of a voice in blocks, with `clipping`, and `memory` says how much may be decoded at a time.
`audio` checks, levels and encodes it, `formats` encodes for other services' clients, `mixing` makes a cover's mix,
`storage` is a folder or a bucket.
"""
