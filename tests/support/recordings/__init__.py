"""Recordings that are made for tests and benches: speech, songs, and files of every format, whole and broken."""
