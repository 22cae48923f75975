"""The connections to PostgreSQL that the threads of a web process share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from django.db import connection

from tests.support.running.processes import database_url
from tests.support.running.web_server import WebServer
from tests.support.tenants import Tenant
from voiceproject.server import serving

POOL, CALLERS = 5, 80


def connected() -> psycopg.Connection:
    return psycopg.connect(database_url(), autocommit=True, application_name="test")


class Watched:
    """How many connections the database had at most in the block, besides those of the test."""

    def __init__(self) -> None:
        self.most = 0
        self._own = {pid for (pid,) in self._pids()}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._done.set()
        self._thread.join()

    def _pids(self, by: psycopg.Connection | None = None) -> list[tuple[int]]:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'test' "
            "AND backend_type = 'client backend'"
        )
        if by is not None:
            return by.execute(query).fetchall()
        with connected() as by:
            return by.execute(query).fetchall()

    def _watch(self) -> None:
        with connected() as by:
            while not self._done.wait(0.01):
                self.most = max(self.most, len({pid for (pid,) in self._pids(by)} - self._own))


@pytest.fixture
def on_postgresql() -> Iterator[None]:
    if connection.vendor != "postgresql":
        pytest.skip("the tests run on SQLite")
    yield


@pytest.mark.django_db(transaction=True)
def test_eighty_requests_at_once_share_five_connections_and_none_fails(on_postgresql: None, tmp_path: Path) -> None:
    tenant = Tenant("tenant")
    with Watched() as watched:
        server = WebServer(tmp_path, DATABASE_POOL_SIZE=str(POOL), WEB_THREADS=str(CALLERS))
        try:
            for _ in range(2):  # What a thread did not give back would be missing the second time.
                with ThreadPoolExecutor(CALLERS) as pool, connected() as blocker, blocker.transaction():
                    # All of them are under way before the first can read a row.
                    blocker.execute("LOCK TABLE voices_voice IN ACCESS EXCLUSIVE MODE")
                    url, headers = f"{server.base}/api/v1/voice/voices", {"X-API-Key": tenant.secret}
                    asked = [pool.submit(requests.get, url, headers=headers, timeout=60) for _ in range(CALLERS)]
                    time.sleep(2)
                    assert not any(future.done() for future in asked)
                    blocker.execute("ROLLBACK")
                    assert {future.result().status_code for future in asked} == {200}
        finally:
            server.close()
    assert watched.most == POOL


@pytest.mark.parametrize(
    ("engine", "size", "shared"), [("postgresql", 20, True), ("postgresql", 0, False), ("sqlite3", 20, False)]
)
def test_only_a_web_process_on_postgresql_has_a_pool(engine: str, size: int, shared: bool, settings: Any) -> None:
    database = {"ENGINE": f"django.db.backends.{engine}", "CONN_MAX_AGE": 60, "OPTIONS": {"connect_timeout": 5}}
    settings.DATABASES, settings.DATABASE_POOL_SIZE = {"default": database}, size
    serving.share_connections()
    options: Any = database["OPTIONS"]
    assert (database["CONN_MAX_AGE"], "pool" in options) == ((0, True) if shared else (60, False))
    if shared:
        assert (options["pool"]["max_size"], options["connect_timeout"]) == (size, 5)
