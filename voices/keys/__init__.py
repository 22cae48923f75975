"""API keys: authentication, what a key may grant, their API."""
