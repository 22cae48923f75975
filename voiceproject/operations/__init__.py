"""What keeps the service running: health, system checks, the metrics endpoint, the worker process."""
