"""The operators' console: the admin site, what its pages share, the dashboard."""
