"""A tenant's own account: its pages for people (`pages`, `forms`), and export and erasure of everything that is held
of it (`personal_data`, `api`). `usage_api` says what was used and what is left.
"""
