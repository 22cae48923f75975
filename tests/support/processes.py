"""Other processes: such as work on this run's database, and which of them run."""

from __future__ import annotations

from django.db import connection


def database_url() -> str:
    """The database of this test run, for another process."""
    parts = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{parts['NAME']}"
    user = f"{parts['USER']}:{parts['PASSWORD']}" if parts["PASSWORD"] else parts["USER"]
    return f"postgres://{user}@{parts['HOST'] or 'localhost'}:{parts['PORT'] or 5432}/{parts['NAME']}"
