"""A tenant's own account: its pages, and export and erasure of everything that is held of it."""
