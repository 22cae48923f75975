"""One call at a time per server: between threads, between processes, and after deaths."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from voiceproject.errors import EngineBusy, EngineUnavailable
from voiceproject.lease import Lease, Leases
from voiceproject.models import EngineLease, EngineWaiter

ONE, TWO = "http://one:9880", "http://two:9880"

pytestmark = pytest.mark.django_db(transaction=True)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def take(leases: Leases, seconds: float = 10.0, **options: Any) -> Lease:
    lease = leases.acquire(soon(seconds), **options)
    assert lease is not None
    return lease


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Runs it in a thread that leaves no database connection behind."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = soon(seconds)
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def database_url() -> str:
    """The database of this test run, for another process."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    host = f"{settings['HOST'] or 'localhost'}:{settings['PORT'] or 5432}"
    return f"postgres://{settings['USER']}:{settings['PASSWORD']}@{host}/{settings['NAME']}"


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process of this project on the same database."""
    setup = "import sys, django\ndjango.setup()\n"
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": database_url()}
    return subprocess.Popen(
        [sys.executable, "-c", setup + textwrap.dedent(code), *arguments],
        env=environment,
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_server_has_one_owner_until_it_is_released() -> None:
    mine, other = Leases([ONE]), Leases([ONE])
    lease = take(mine)
    assert (lease.server, lease.needs_probe) == (ONE, False)
    assert other.states()[ONE].held
    with pytest.raises(EngineBusy) as refused:
        other.acquire(soon(0.2))
    assert refused.value.retry_after is not None and refused.value.retry_after >= 1
    lease.release(needs_probe=False)
    assert not other.states()[ONE].held
    with take(other, 0.0) as second:
        assert not second.needs_probe


def test_a_lease_is_renewed_while_its_call_runs() -> None:
    short, other = Leases([ONE], lease_seconds=1.2), Leases([ONE])
    with take(short):
        with pytest.raises(EngineBusy):
            other.acquire(soon(2.5))
        row = EngineLease.objects.annotate(clock=Now()).get()
        assert row.expires_at > row.clock
    assert EngineLease.objects.get().owner == ""


def test_an_expired_lease_is_taken_over_but_not_trusted() -> None:
    EngineLease.objects.create(server=ONE, owner="dead", expires_at=Now() - timedelta(seconds=1))
    with take(Leases([ONE])) as lease:
        assert lease.needs_probe
        assert EngineLease.objects.get().needs_probe  # also for the next, should this one die too
        lease.answered()
    with take(Leases([ONE])) as lease:
        assert not lease.needs_probe


def test_the_lease_of_a_killed_process_comes_back_after_its_time() -> None:
    holder = child(
        f"""
        import time
        from voiceproject.lease import Leases
        lease = Leases(["{ONE}"], lease_seconds=1.5).acquire(time.monotonic() + 5)
        print(lease.owner, flush=True)
        time.sleep(60)
        """
    )
    assert holder.stdout is not None
    owner = holder.stdout.readline().strip()
    assert EngineLease.objects.get(server=ONE).owner == owner
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with pytest.raises(EngineBusy):
        Leases([ONE]).acquire(time.monotonic())
    with take(Leases([ONE])) as lease:
        assert lease.needs_probe
        row = EngineLease.objects.get()
        assert row.owner == lease.owner != owner


def test_a_late_owner_neither_renews_nor_releases_the_lease_of_its_successor() -> None:
    late = take(Leases([ONE]))
    EngineLease.objects.update(expires_at=Now() - timedelta(seconds=1))
    with take(Leases([ONE])) as successor:
        late.release(needs_probe=False)
        row = EngineLease.objects.get()
        assert (row.owner, row.needs_probe) == (successor.owner, True)


def test_a_server_in_doubt_stays_so_until_it_has_answered() -> None:
    leases = Leases([ONE])
    take(leases).release(needs_probe=True)
    assert leases.states()[ONE].needs_probe
    with take(leases) as unanswered:
        assert unanswered.needs_probe
    with take(leases) as answered:
        assert answered.needs_probe
        answered.answered()
    assert not leases.states()[ONE].needs_probe


def test_an_exception_in_the_block_leaves_the_server_in_doubt() -> None:
    leases = Leases([ONE])
    with pytest.raises(KeyboardInterrupt), take(leases):
        raise KeyboardInterrupt
    assert leases.states()[ONE].needs_probe and not leases.states()[ONE].held


def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    # Two pools, as two processes have: what one wakes the other does not hear.
    pools = [Leases([ONE]), Leases([ONE])]
    held = take(pools[0])
    served: list[int] = []

    def wait(number: int) -> None:
        with take(pools[number % 2]):
            served.append(number)

    threads = []
    for number in range(5):
        threads.append(in_thread(lambda number=number: wait(number)))  # type: ignore[misc]
        until(lambda number=number: EngineWaiter.objects.count() == number + 1)  # type: ignore[misc]
    held.release(needs_probe=False)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]
    assert EngineWaiter.objects.count() == 0


def test_nobody_overtakes_one_who_waits() -> None:
    EngineWaiter.objects.create(queue="gptsovits", expires_at=Now() + timedelta(seconds=60))
    with pytest.raises(EngineBusy):
        Leases([ONE]).acquire(soon(0.2))
    # Another engine's line is no concern of ours.
    with take(Leases([ONE], queue="other"), 0.0):
        pass


def test_a_waiter_that_died_is_passed_over() -> None:
    EngineWaiter.objects.create(queue="gptsovits", expires_at=Now() - timedelta(seconds=1))
    with take(Leases([ONE]), 0.0):
        pass


def test_the_line_is_bounded() -> None:
    leases = Leases([ONE], max_waiting=2)
    for _ in range(2):
        EngineWaiter.objects.create(queue="gptsovits", expires_at=Now() + timedelta(seconds=60))
    started = time.monotonic()
    with pytest.raises(EngineBusy) as refused:
        leases.acquire(soon(20))
    assert time.monotonic() - started < 10, "it waited although the line was full"
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 10  # two calls of some 5 s
    assert EngineWaiter.objects.count() == 2
    # Who has had a sentence spoken already is not turned away in the middle, but waits behind the others.
    with pytest.raises(EngineBusy):
        leases.acquire(soon(0.2), admitted=True)


def test_a_canceled_waiter_leaves_the_line() -> None:
    leases = Leases([ONE])
    with take(leases):
        assert leases.acquire(soon(), canceled=lambda: True) is None
    assert EngineWaiter.objects.count() == 0


def test_work_goes_to_the_free_server_and_rather_to_the_one_that_is_preferred() -> None:
    leases = Leases([ONE, TWO])
    for _ in range(6):
        with take(leases, prefer=TWO) as first:
            assert first.server == TWO
            with take(leases, prefer=TWO) as second:
                assert second.server == ONE
                with pytest.raises(EngineBusy):
                    leases.acquire(time.monotonic())


def test_a_server_in_doubt_is_taken_last() -> None:
    leases = Leases([ONE, TWO])
    take(leases, prefer=ONE).release(needs_probe=True)
    for _ in range(6):
        with take(leases, prefer=ONE) as lease:
            assert lease.server == TWO


def test_a_server_that_failed_is_left_alone_for_a_while() -> None:
    leases = Leases([ONE, TWO], set_aside_seconds=1.0)
    take(leases, prefer=ONE).release(needs_probe=True, set_aside=True, unreachable=True)
    with take(leases) as lease:
        assert lease.server == TWO
        with pytest.raises(EngineBusy):
            leases.acquire(time.monotonic())
        with take(leases) as back:
            assert back.server == ONE and back.needs_probe


def test_when_no_server_can_be_reached_nobody_waits_for_one() -> None:
    leases = Leases([ONE, TWO], set_aside_seconds=60)
    for server in (ONE, TWO):
        take(leases, prefer=server).release(needs_probe=True, set_aside=True, unreachable=True)
    with pytest.raises(EngineUnavailable) as refused:
        leases.acquire(soon(20))
    assert refused.value.retry_after is not None and 1 <= refused.value.retry_after <= 60


def test_a_server_to_avoid_is_avoided() -> None:
    leases = Leases([ONE, TWO])
    with take(leases, prefer=ONE, avoid=frozenset({ONE})) as lease:
        assert lease.server == TWO
        with pytest.raises(EngineBusy):
            leases.acquire(time.monotonic(), avoid=frozenset({ONE}))


def test_a_lease_inside_a_transaction_is_a_mistake() -> None:
    # Nobody else would see it before the call is over.
    with pytest.raises(RuntimeError), transaction.atomic():
        Leases([ONE]).acquire(soon())


def test_a_database_that_fails_at_the_release_does_not_fail_the_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leases = Leases([ONE], lease_seconds=0.5)
    lease = take(leases)

    def broken(*args: Any, **kwargs: Any) -> int:
        raise OperationalError("the server closed the connection unexpectedly")

    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(QuerySet, "update", broken)
        lease.release(needs_probe=False)
    assert "could not be released" in caplog.text
    # It runs out, and the next one probes.
    with take(leases) as following:
        assert following.needs_probe


def test_processes_exclude_each_other(tmp_path: Path) -> None:
    code = """
        import os, time
        from voiceproject.lease import Leases
        leases = Leases(["http://one:9880"])
        for _ in range(12):
            with leases.acquire(time.monotonic() + 60, admitted=True):
                # Fails if another one is in here.
                os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
                time.sleep(0.002)
                os.unlink(sys.argv[1])
        print("done", flush=True)
        """
    processes = [child(code, str(tmp_path / "inside")) for _ in range(4)]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert outputs == ["done\n"] * 4
    row = EngineLease.objects.get()
    assert (row.owner, row.needs_probe) == ("", False)
    assert EngineWaiter.objects.count() == 0
