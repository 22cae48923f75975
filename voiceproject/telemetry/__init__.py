"""Logs, metrics, traces and error reports: what the service says of itself.

Knows nothing of the rest of the product, so that everything may use it."""
