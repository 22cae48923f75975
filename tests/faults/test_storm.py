"""Two hundred covers over four workers while workers, Redis and PostgreSQL are killed: each ends exactly once."""

from __future__ import annotations

import json
import os

import pytest

from tests.faults.servers import missing, run_module

pytestmark = pytest.mark.faults


def test_every_job_ends_exactly_once_whatever_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    if lacking := missing():
        message = f"needs {lacking}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    # A process of its own: its database is another than that of these tests, and goes away now and then.
    ran = run_module("tests.faults.storm", "--jobs", "200", "--workers", "4", seconds=900)
    with capsys.disabled():
        print(f"\n{ran.stdout}")
    assert ran.stdout, ran.stderr[-4000:]
    figures = json.loads(ran.stdout)
    assert figures["wrong"] == []
    assert figures["ended"] == {"succeeded": figures["jobs"]}
    assert figures["jobs"] >= 200
    # And that it was a storm: jobs were hit, and each kind of fault came.
    assert sum(count for attempt, count in figures["attempts"].items() if int(attempt) > 1) >= 5
    assert {"kill both", "kill worker", "kill main", "pause a worker", "flush Redis", "kill Redis",
            "restart PostgreSQL", "crash PostgreSQL"} <= figures["faults"].keys()  # fmt: skip
