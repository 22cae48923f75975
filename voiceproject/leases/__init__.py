"""Leases of engines' servers: one call at a time over all processes, in turns between tenants."""
