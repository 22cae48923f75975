"""Who uses the service, and how much.

`usage` is the ledger with its quotas, `ratelimit` bounds requests, `audit` remembers who did what, `roles` are the
operators' groups, `signin` throttles passwords, `textfilter` refuses texts.
"""
