"""Who uses the service and how much: limits, rate limits, usage, audit log, roles, sign-in, suspension."""
