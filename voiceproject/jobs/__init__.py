"""Jobs: the abstract model with its transitions, whose turn it is, heartbeats, events, engines' leases."""
