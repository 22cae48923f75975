"""Sentences as they are said, one module a language: no digits, no signs, only words and punctuation."""
