"""What tenants are told when a job has ended: deliveries, the safe HTTP client that sends them, their API."""
