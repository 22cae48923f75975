"""Two hosts with disks of their own, which share PostgreSQL, Redis and a bucket, and a cable that is pulled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.faults.servers import missing, run_module

pytestmark = pytest.mark.faults


def cannot_make_networks() -> str:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and iproute2 for network namespaces"
    name = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return made.stderr.strip()


def test_a_job_of_a_host_that_is_cut_off_is_finished_on_the_other() -> None:
    if lacking := missing():
        message = f"needs {lacking}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    if reason := cannot_make_networks():
        pytest.skip(f"no network namespaces: {reason}")
    ran = run_module("tests.faults.two_hosts", seconds=300)
    assert ran.returncode == 0, ran.stderr[-6000:]
    seen = json.loads(ran.stdout)
    assert seen["first"] == {"host": "host-a", "attempt": 1, "stage": "infer"}
    assert seen["last"] == {"status": "succeeded", "host": "host-b", "attempt": 2, "ends": 1}
    # The stems that the first host had made were fetched from the bucket, not made again.
    assert seen["separated_on"] == ["host-a"]
    assert seen["command_of_the_first_ended_after_seconds"] < seen["cut_off_limit_seconds"] + 10
    assert seen["scratch_left"] == {"host-a": [], "host-b": []}
