"""The base voices of the built-in engine, a module for each language, and the networks that speak for them.

`base` says what a base voice and a language's module offer. `english`, `japanese` and `chinese` read text and speak it,
the `*_text` modules write numbers, dates and signs out in words, `piper` and `kokoro` run the networks.
"""
