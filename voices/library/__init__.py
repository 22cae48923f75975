"""Saved voices: samples, their quality, consent, references that engines hear, their API."""
