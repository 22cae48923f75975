"""Stand-ins for what is not ours: engines, and servers of others."""
