"""Text to speech in cloned voices.

`speech` makes audio of texts, with one of the `engines`; `text` reads them. `library` keeps voices and the consents to
them, `keys` says who may ask. `account` has a tenant's own pages, `compat` the APIs of other services.
`registration` tells the frame of all this.
"""
