"""Synthesis: requests, the engine registry, speaking (sync, streamed, as a job), the API."""
