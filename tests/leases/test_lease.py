"""One call at a time per server: between threads, between processes, and after deaths."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, transaction
from django.db.models.functions import Now

from tests.support.running.processes import child
from tests.support.threads import in_thread
from tests.support.waiting import until
from voiceproject.errors import EngineBusy, EngineUnavailable
from voiceproject.leases import lease as lease_module
from voiceproject.leases.lease import UNKNOWN, Lease, Leases
from voiceproject.leases.models import EngineLease, EngineTurn, EngineWaiter
from voiceproject.leases.notifier import Notifier
from voiceproject.leases.rows import LOADED_SECONDS
from voiceproject.prepared import Update

ONE, TWO = "http://one:9880", "http://two:9880"

pytestmark = pytest.mark.django_db(transaction=True)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def take(leases: Leases, seconds: float = 10.0, **options: Any) -> Lease:
    lease = leases.acquire(soon(seconds), **options)
    assert lease is not None
    return lease


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
        from voiceproject.leases.lease import Leases
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
        patched.setattr(Update, "__call__", broken)
        lease.release(needs_probe=False)
    assert "could not be released" in caplog.text
    # It runs out, and the next one probes.
    with take(leases) as following:
        assert following.needs_probe


def test_processes_exclude_each_other(tmp_path: Path) -> None:
    code = """
        import os, time
        from voiceproject.leases.lease import Leases
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


# --- by turns -----------------------------------------------------------------------------------------------


def wait_in_line(pool: Leases, tenant: str, served: list[str], **options: Any) -> threading.Thread:
    """Another one in the line, which is there when this returns."""
    before = EngineWaiter.objects.count()

    def wait() -> None:
        with take(pool, 60, tenant=tenant, admitted=True, **options):
            served.append(tenant)

    thread = in_thread(wait)
    until(lambda: EngineWaiter.objects.count() == before + 1)
    return thread


def test_many_of_one_tenant_do_not_hold_up_one_of_another() -> None:
    pools = [Leases([ONE]), Leases([ONE])]
    held = take(pools[0], tenant="crowd")
    served: list[str] = []
    threads = [wait_in_line(pools[number % 2], "crowd", served) for number in range(8)]
    threads.append(wait_in_line(pools[0], "late", served))
    threads.append(wait_in_line(pools[1], "later", served))
    held.release(needs_probe=False)
    for thread in threads:
        thread.join()
    # The crowd was served last, so the others come first, however late they came.
    assert served == ["late", "later", *["crowd"] * 8]


def test_a_crowd_in_another_process_does_not_hold_up_one_here() -> None:
    held = take(Leases([ONE]), tenant="somebody")
    crowd = child(
        f"""
        import threading, time
        from django.db import connections
        from voiceproject.leases.lease import Leases
        leases = Leases(["{ONE}"])
        def work():
            with leases.acquire(time.monotonic() + 60, tenant="crowd", admitted=True):
                print("crowd", time.monotonic(), flush=True)
                time.sleep(0.02)
            connections.close_all()
        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    until(lambda: EngineWaiter.objects.filter(tenant="crowd").count() == 10, 30)
    served: list[float] = []

    def wait() -> None:
        with take(Leases([ONE]), 60, tenant="one"):
            served.append(time.monotonic())

    thread = in_thread(wait)
    until(lambda: EngineWaiter.objects.filter(tenant="one").exists())
    held.release(needs_probe=False)
    thread.join()
    output, _ = crowd.communicate(timeout=60)
    times = [float(line.split()[1]) for line in output.splitlines()]
    assert len(times) == 10
    assert sum(at < served[0] for at in times) <= 1, "at most one of the crowd went before"


def test_tenants_take_turns() -> None:
    leases = Leases([ONE])
    held = take(leases, tenant="z")
    served: list[str] = []
    threads = [wait_in_line(leases, tenant, served) for tenant in "aaabbbcc"]
    held.release(needs_probe=False)
    for thread in threads:
        thread.join()
    assert served == ["a", "b", "c"] * 2 + ["a", "b"]


def test_a_text_that_comes_again_after_each_sentence_takes_turns_with_a_crowd() -> None:
    # It has nobody in the line while its sentence is spoken, and must not lose its place by that.
    leases = Leases([ONE])
    order: list[str] = []
    gate = threading.Semaphore(0)

    def crowd() -> None:
        with take(leases, 60, tenant="crowd", admitted=True):
            order.append("crowd")
            gate.acquire(timeout=30)

    sentence = take(leases, tenant="text")
    threads = [in_thread(crowd) for _ in range(2)]
    until(lambda: EngineWaiter.objects.count() == 2)
    sentence.release(needs_probe=False)
    until(lambda: order == ["crowd"])
    threads.append(wait_in_line(leases, "text", order))
    gate.release(2)
    for thread in threads:
        thread.join()
    assert order == ["crowd", "text", "crowd"]


def test_a_tenant_that_fills_the_line_shuts_out_itself_alone() -> None:
    leases = Leases([ONE], max_waiting=2)
    take(leases, tenant="crowd").release(needs_probe=False)
    for _ in range(2):
        EngineWaiter.objects.create(queue="gptsovits", tenant="crowd", expires_at=Now() + timedelta(seconds=60))
    started = time.monotonic()
    with pytest.raises(EngineBusy):
        leases.acquire(soon(20), tenant="crowd")
    assert time.monotonic() - started < 10, "it waited although the line was full"
    # Another one gets a place; it goes first, and so is served at once.
    with take(leases, tenant="other"):
        pass
    for number in range(2):
        EngineWaiter.objects.create(queue="gptsovits", tenant=f"{number}", expires_at=Now() + timedelta(seconds=60))
    with pytest.raises(EngineBusy):  # twice as many is the end for all
        leases.acquire(soon(20), tenant="another")
    assert time.monotonic() - started < 15
    assert EngineTurn.objects.filter(tenant="other").count() == 1


def test_who_waits_for_one_server_does_not_hold_up_who_wants_another() -> None:
    leases = Leases([ONE, TWO])
    held = take(leases, servers=[ONE])
    served: list[str] = []
    waiter = wait_in_line(leases, "a", served, servers=[ONE])
    with take(leases, tenant="b", servers=[TWO]) as lease:
        assert lease.server == TWO
        assert served == []
        with pytest.raises(EngineBusy):
            leases.acquire(soon(0.2), servers=[TWO])
    held.release(needs_probe=False)
    waiter.join()


# --- waking -------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter that is not woken does not look again before the test has failed."""
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 60.0)
    monkeypatch.setattr(lease_module, "MAX_POLL_SECONDS", 60.0)


def test_a_freed_server_wakes_the_next_of_this_process(nobody_looks: None) -> None:
    leases = Leases([ONE, TWO])
    both = [take(leases), take(leases)]
    served: list[str] = []
    threads = [wait_in_line(leases, tenant, served) for tenant in "aabbc"]
    for lease in both:
        lease.release(needs_probe=False)
    for thread in threads:
        thread.join(15)
    assert sorted(served) == sorted("aabbc")


def test_a_freed_server_wakes_the_next_of_another_process(nobody_looks: None) -> None:
    holder = child(
        f"""
        import time
        from voiceproject.leases.lease import Leases
        lease = Leases(["{ONE}"]).acquire(time.monotonic() + 5)
        print("held", flush=True)
        while not list(__import__("voiceproject.leases.models").leases.models.EngineWaiter.objects.all()):
            time.sleep(0.02)
        time.sleep(0.5)
        lease.release(needs_probe=False)
        """,
        data_dir=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    started = time.monotonic()
    with take(Leases([ONE]), 120):
        pass
    assert time.monotonic() - started < 40, "by itself it looks after 42 s at the earliest"
    assert holder.wait(20) == 0


def test_a_notifier_works_in_deep_folders_and_forgets_who_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    heard = threading.Event()
    listening, notifying = Notifier(folder, heard.set), Notifier(folder, lambda: None)
    notifying.notify()  # nobody there yet
    listening.listen()
    ended = folder / "1-dead"
    subprocess.run([sys.executable, "-c", f"import os, socket; os.chdir({str(folder)!r}); "
                    "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind('1-dead')"], check=True)  # fmt: skip
    assert ended.exists()
    notifying.notify()
    assert heard.wait(10)
    assert not ended.exists()
    heard.clear()
    listening.notify()  # not itself
    assert not heard.wait(0.2)


# --- what is loaded -----------------------------------------------------------------------------------------


def test_what_is_loaded_is_remembered_until_something_is_uncertain() -> None:
    leases = Leases([ONE])
    with take(leases) as lease:
        assert lease.loaded == ""
        lease.remember("anna")
    with take(leases) as lease:
        assert lease.loaded == "anna"
        lease.release(needs_probe=True)  # a time-out
    with take(leases) as lease:
        assert lease.loaded == UNKNOWN
        lease.answered()
        lease.remember("anna")
    EngineLease.objects.update(owner="dead", expires_at=Now() - timedelta(seconds=1))
    with take(leases) as lease:
        assert lease.loaded == UNKNOWN
        lease.answered()
        lease.remember("anna")
    EngineLease.objects.update(loaded_at=Now() - timedelta(hours=1))
    with take(leases) as lease:
        assert lease.loaded == UNKNOWN
    assert EngineLease.objects.get().loaded == UNKNOWN


def test_what_is_loaded_grows_old_from_its_switch_on_also_where_a_lease_is_handed_over() -> None:
    leases = Leases([ONE])
    with take(leases) as lease:
        lease.remember("anna")
    EngineLease.objects.update(loaded_at=Now() - timedelta(seconds=LOADED_SECONDS - 1))
    first = take(leases)
    assert first.loaded == "anna" and first.loaded_at == EngineLease.objects.get().loaded_at
    later: list[tuple[str, object]] = []

    def work() -> None:
        with take(leases) as lease:
            later.append((lease.loaded, lease.loaded_at))

    thread = in_thread(work)
    until(lambda: EngineWaiter.objects.count() == 1)
    time.sleep(1.1)
    first.release(needs_probe=False)
    thread.join()
    assert later == [(UNKNOWN, first.loaded_at)]


def test_of_free_servers_the_one_of_the_lowest_rank_is_taken() -> None:
    leases = Leases([ONE, TWO])
    with take(leases, prefer=TWO) as lease:
        lease.remember("anna")
    for _ in range(6):
        with take(leases, prefer=ONE, rank=lambda server, loaded: int(loaded != "anna")) as lease:
            assert (lease.server, lease.loaded) == (TWO, "anna")


# --- back again ---------------------------------------------------------------------------------------------


def probing_threads(server: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"probe {server}"]


def test_a_server_in_doubt_is_probed_behind_the_callers_until_it_answers() -> None:
    leases = Leases([ONE, TWO], set_aside_seconds=0.05)
    take(leases, prefer=ONE).release(needs_probe=True, set_aside=True, unreachable=True)
    answers = [False, None, True]
    probing: list[bool] = []

    def probe() -> bool | None:
        state = Leases([ONE, TWO]).states()[ONE]
        probing.append(state.held and state.set_aside)  # nobody else calls it, and nobody waits for it
        return answers.pop(0)

    leases.probe_back(ONE, probe)
    leases.probe_back(ONE, probe)  # one is enough
    until(lambda: not leases.states()[ONE].needs_probe)
    until(lambda: not leases.states()[ONE].held)
    assert answers == [] and probing == [True] * 3
    assert not leases.states()[ONE].set_aside
    with take(leases, prefer=ONE) as lease:
        assert (lease.server, lease.needs_probe) == (ONE, False)
    assert not EngineTurn.objects.exclude(tenant="").exists()
    until(lambda: not probing_threads(ONE))


def test_a_probe_ends_when_its_pool_is_closed() -> None:
    leases = Leases([ONE], set_aside_seconds=60)
    leases.probe_back(ONE, lambda: True)
    (thread,) = probing_threads(ONE)
    leases.close()
    thread.join(10)
    assert not thread.is_alive()


def test_the_expected_wait_follows_from_the_line_and_from_how_long_calls_take() -> None:
    leases = Leases([ONE, TWO])
    assert leases.expected_wait_seconds() == 0
    with take(leases):
        assert leases.expected_wait_seconds() == 0, "one is free"
        with take(leases):
            EngineLease.objects.update(usual_seconds=8.0)
            assert leases.expected_wait_seconds() == pytest.approx(4)
            for _ in range(3):
                EngineWaiter.objects.create(queue="gptsovits", expires_at=Now() + timedelta(seconds=60))
            assert Leases([ONE, TWO]).expected_wait_seconds() == pytest.approx(16)
    assert EngineLease.objects.filter(usual_seconds__lt=8.0).count() == 2, "they were shorter now"


# --- who is let in ------------------------------------------------------------------------------------------


def standing(leases: Leases, tenants: str, seconds: float | None = None) -> None:
    """Lets one of each of these tenants stand in the line; seconds: what a call took so far."""
    for tenant in tenants:
        leases.line.join(tenant, [])
    EngineLease.objects.update(usual_seconds=seconds)


def refusal(leases: Leases, **options: Any) -> float | None:
    """The Retry-After of somebody who would wait for a minute; None for one who is let in."""
    told: list[float | None] = []

    def come() -> None:
        try:
            leases.acquire(soon(60), canceled=lambda: True, **options)
            told.append(None)
        except EngineBusy as error:
            told.append(error.retry_after)

    thread = in_thread(come)
    thread.join(20)
    return told[0]


def test_who_would_wait_too_long_is_refused_and_told_how_long() -> None:
    leases = Leases([ONE, TWO])
    with take(leases, tenant="z"), take(leases, tenant="z"):
        standing(leases, "aaaabbbbcccc", seconds=20.0)
        # The fifth of a: behind all twelve, two at a time.
        assert refusal(leases, tenant="a") == 130
        assert refusal(leases, tenant="d") is None, "behind three at most"
        assert refusal(leases, tenant="a", servers=[ONE]) == 260, "one server has half as many calls"
        assert refusal(leases, tenant="a", admitted=True) is None, "not in the middle of a text"
        EngineLease.objects.update(usual_seconds=4.0)
        assert refusal(leases, tenant="a") is None, "the same line of faster servers"


def test_a_long_line_is_no_reason_to_refuse_before_a_call_was_measured() -> None:
    leases = Leases([ONE])
    with take(leases):
        standing(leases, "a" * 40)
        assert refusal(leases, tenant="a") is None
        assert EngineLease.objects.get().usual_seconds is None
    assert EngineLease.objects.get().usual_seconds < 5, "the first call counts in full"


def test_who_comes_next_waits_about_one_call_whatever_others_have_queued() -> None:
    leases = Leases([ONE])
    take(leases, tenant="crowd").release(needs_probe=False)
    with take(leases, tenant="crowd"):
        standing(leases, ["crowd"] * 50, seconds=3.0)  # type: ignore[arg-type]
        assert leases.retry_after_seconds("other") == 3
        assert leases.retry_after_seconds("crowd") == 153
        assert refusal(leases, tenant="crowd") == 153
        EngineLease.objects.update(usual_seconds=100.0)
        assert refusal(leases, tenant="other") is None, "it is the next"


def test_places_for_other_servers_do_not_count() -> None:
    leases = Leases([ONE, TWO])
    with take(leases), take(leases):
        for _ in range(9):
            leases.line.join("a", [TWO])
        EngineLease.objects.update(usual_seconds=10.0)
        assert refusal(leases, tenant="a", servers=[TWO]) == 100
        assert refusal(leases, tenant="a", servers=[ONE]) is None


# --- handing over -------------------------------------------------------------------------------------------


def test_a_lease_is_handed_over_without_being_free_in_between(
    nobody_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases([ONE])
    held = take(leases, tenant="z")
    served: list[str] = []
    threads = [wait_in_line(leases, tenant, served) for tenant in "aab"]
    monkeypatch.setattr(Leases, "_take_one", lambda *_: pytest.fail("it was free, and somebody looked"))
    held.release(needs_probe=False)
    for thread in threads:
        thread.join(20)
    assert served == ["a", "b", "a"]
    row = EngineLease.objects.get()
    assert (row.owner, row.needs_probe) == ("", False)
    assert row.usual_seconds is not None
    assert EngineWaiter.objects.count() == 0


def test_a_lease_that_is_handed_to_one_who_leaves_goes_on_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    leases = Leases([ONE])
    held = take(leases, tenant="z")
    left = threading.Event()
    found: list[Any] = []
    leaving = in_thread(lambda: found.append(leases.acquire(soon(60), tenant="a", canceled=left.is_set)))
    until(lambda: EngineWaiter.objects.count() == 1)
    served: list[str] = []
    thread = wait_in_line(leases, "b", served)
    left.set()  # It learns of it when it is woken, with the lease in its hand.
    held.release(needs_probe=False)
    leaving.join(20)
    thread.join(20)
    assert found == [None] and served == ["b"]
    row = EngineLease.objects.get()
    assert (row.owner, row.needs_probe) == ("", False)


def test_a_lease_that_has_run_out_is_handed_to_nobody() -> None:
    leases = Leases([ONE])
    late = take(leases)
    EngineLease.objects.update(owner="another")
    served: list[str] = []
    thread = wait_in_line(leases, "a", served)
    late.release(needs_probe=False)
    assert EngineLease.objects.get().owner == "another" and served == []
    EngineLease.objects.update(owner="")
    thread.join(20)
    assert served == ["a"]


def test_crowds_in_two_processes_that_give_up_at_random_never_share_a_server(tmp_path: Path) -> None:
    code = """
        import os, random, threading, time
        from django.db import connections
        from voiceproject.errors import EngineBusy
        from voiceproject.leases.lease import Leases
        leases = Leases(["http://one:9880", "http://two:9880"])
        def work(number):
            chance = random.Random(number)
            for _ in range(6):
                patience = chance.choice((0.01, 0.05, 30))
                end = time.monotonic() + chance.choice((0.02, 30, 30))
                try:
                    lease = leases.acquire(time.monotonic() + patience, tenant=str(number % 3),
                                           canceled=lambda: time.monotonic() > end)
                except EngineBusy:
                    continue
                if lease is not None:
                    with lease:
                        inside = os.path.join(sys.argv[1], lease.server[-8:-5])
                        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # Fails if another one is in here.
                        time.sleep(0.005)
                        os.unlink(inside)
            connections.close_all()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        threading.excepthook = lambda args: (sys.__excepthook__(*args[:3]), os._exit(1))
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print("done", flush=True)
        """
    processes = [child(code, str(tmp_path), data_dir=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert outputs == ["done\n"] * 2
    assert {row.owner for row in EngineLease.objects.all()} == {""}
    assert EngineWaiter.objects.count() == 0
