"""API keys: `auth` recognises one, `grants` makes, changes and revokes them, `api` is /api/v1/keys."""
