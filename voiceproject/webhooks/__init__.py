"""What tenants are told when a job has ended (Standard Webhooks).

`deliveries` writes, signs, sends and retries them, `safe_http` sends to public addresses only, `api` shows the log.
"""
