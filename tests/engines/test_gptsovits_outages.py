"""The GPT-SoVITS client where a server does not answer, and whether one is well: connections, time-outs, health."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.gptsovits import FakeGptSovits
from tests.support.gptsovits_client import Engines, ask, failure, pitch, plain, post, refused_url, speak, voice
from tests.support.threads import in_thread
from tests.support.waiting import promised, until
from voiceproject.errors import EngineUnavailable
from voiceproject.leases.models import EngineLease, EngineWaiter
from voices.engines.gptsovits.servers import Server, Witness
from voices.engines.interface import Piece

# --- servers that do not answer -----------------------------------------------------------------------------


def test_a_refused_connection_is_unavailable(engine_for: Engines) -> None:
    engine = engine_for(refused_url(), set_aside_seconds=60)
    for _ in range(2):  # tried, then known
        error = failure(engine)
        assert (error.code, error.status) == ("engine_unavailable", 503)
    assert error.retry_after is not None and error.retry_after > 1
    assert "127.0.0.1" not in error.message


def test_an_unknown_host_is_unavailable(engine_for: Engines) -> None:
    assert failure(engine_for("http://no-such-host.invalid:9880")).code == "engine_unavailable"


def test_a_server_that_comes_back_is_used_again(engine_for: Engines) -> None:
    url = refused_url()
    engine = engine_for(url, set_aside_seconds=0.2)
    assert failure(engine).code == "engine_unavailable"
    heard: list[list[Piece]] = []

    def answers() -> bool:
        # A probe that began before the server was there sets it aside once more.
        try:
            heard.append(speak(engine))
        except EngineUnavailable:
            return False
        return True

    with FakeGptSovits(port=urlsplit(url).port or 0):
        until(answers)
    assert pitch(heard[0]) == pytest.approx(120, rel=0.03)


def test_a_reset_before_the_answer_is_unavailable_and_probed_before_the_next_call(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    fake.moods.append("reset")
    error = failure(engine)
    assert (error.code, error.status) == ("engine_unavailable", 503)
    assert (len(fake.log), fake.probes) == (1, 0)
    assert len(speak(engine)) == 1
    assert fake.probes == 1


@pytest.mark.parametrize("mood", ["drip", "drip_header"])
def test_bytes_that_drip_do_not_stretch_the_time_limit(fake: FakeGptSovits, engine_for: Engines, mood: str) -> None:
    fake.mood = mood
    started = time.monotonic()
    error = failure(engine_for(fake.url, timeout_seconds=0.7))
    assert (error.code, error.status) == ("engine_timeout", 504)
    assert 0.7 <= time.monotonic() - started < 10


def test_after_a_time_out_the_server_is_used_only_once_it_has_answered_a_probe(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url, timeout_seconds=0.5, queue_seconds=0.7)
    fake.moods.append("hang")
    error = failure(engine)
    assert (error.code, error.status) == ("engine_timeout", 504)
    assert EngineLease.objects.get().needs_probe
    # The server still works on it. Slow is not dead: the next one waits for its turn, and in vain.
    error = failure(engine)
    assert (error.code, error.status) == ("engine_busy", 503)
    assert error.retry_after is not None and error.retry_after >= 1
    assert len(fake.log) == 1, "not called while it may still speak for another"
    assert EngineLease.objects.get().needs_probe
    fake.wake()
    until(lambda: "ended" in fake.log[0])
    assert pitch(speak(engine, ask(reference=voice(200)))) == pytest.approx(200, rel=0.03)
    assert fake.log[1]["arrived"] > fake.log[0]["ended"]
    assert not EngineLease.objects.get().needs_probe


def test_whoever_waits_for_a_late_server_goes_on_as_soon_as_it_answers(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url, timeout_seconds=0.4)
    fake.moods.append("hang")
    assert failure(engine).code == "engine_timeout"
    engine = engine_for(fake.url)
    done = threading.Event()

    def work() -> None:
        speak(engine)
        done.set()

    thread = in_thread(work)
    until(lambda: EngineLease.objects.get().owner != "")  # it holds the lease, and probes
    assert not done.is_set() and len(fake.log) == 1
    fake.wake()
    thread.join()
    assert done.is_set() and fake.overlaps() == 0


def test_the_requests_deadline_bounds_everything(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    fake.moods.append("hang")
    started = time.monotonic()
    assert failure(engine, seconds=0.5).code == "engine_timeout"  # in the call
    assert failure(engine, seconds=0.5).code == "engine_timeout"  # in the probe
    EngineLease.objects.update(owner="another", expires_at="2100-01-01T00:00:00Z")
    assert failure(engine, seconds=0.5).code == "engine_timeout"  # in the line
    assert failure(engine, seconds=-1).code == "engine_timeout"
    assert time.monotonic() - started < 10
    assert len(fake.log) == 1 and EngineWaiter.objects.count() == 0


# --- connections --------------------------------------------------------------------------------------------


def test_connections_are_kept(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    for _ in range(5):
        speak(engine)
    assert fake.connections == 1


def test_uvicorn_keeps_a_connection_that_nothing_is_sent_on_until_its_process_ends(tmp_path: Path) -> None:
    # What api_v2.py is served by. A connection that served a request is closed after some seconds.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / "nothing.py").write_text("async def app(scope, receive, send): pass\n")
        options = ["--fd", str(listener.fileno()), "--lifespan", "off", "--timeout-keep-alive", "1"]
        argv = [sys.executable, "-m", "uvicorn", "nothing:app", *options]
        process = subprocess.Popen(argv, pass_fds=[listener.fileno()], cwd=tmp_path)
    try:
        witness = Witness("127.0.0.1", port, 10, None)
        until(lambda: is_served(port), 30)
        time.sleep(2.5)
        assert witness.lives()
        process.kill()
        until(lambda: not witness.lives(), 10)
        witness.close()
    finally:
        process.kill()
        process.wait()


def is_served(port: int) -> bool:
    """Whether something answers there, be it by an error."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return bool(connection.recv(1))


def test_a_request_goes_out_in_one_packet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        asked = pool.submit(server.request, "POST", "/tts", time.monotonic() + 10, 1000, body=b"x" * 500)
        connection, _ = listener.accept()
        with connection:
            first = connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            answer = asked.result(10)
    assert first.startswith(b"POST /tts HTTP/1.1\r\n") and first.endswith(b"\r\n\r\n" + b"x" * 500)
    assert answer.body == b"ok"


def test_a_connection_that_the_server_has_closed_is_replaced(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.keep_alive_seconds = 0.1
    engine = engine_for(fake.url)
    speak(engine)
    until(lambda: fake._sockets[0].fileno() == -1)  # the server has closed it
    assert len(speak(engine)) == 1
    assert fake.connections == 2


def test_a_connection_that_breaks_as_it_is_used_again_is_replaced(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    speak(engine)
    fake.moods.append("reset")
    assert len(speak(engine)) == 1
    assert fake.connections == 2
    # But a fresh one that breaks is a failure.
    fake.moods.extend(["reset", "reset"])
    assert failure(engine).code == "engine_unavailable"


def test_proxies_of_the_environment_are_not_used(
    fake: FakeGptSovits, engine_for: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, refused_url())
    assert len(speak(engine_for(fake.url))) == 1


def test_a_password_in_the_url_is_sent_and_shown_nowhere(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url.replace("http://", "http://user:p%40ss@") + "/")
    assert len(speak(engine)) == 1
    assert fake.log[0]["headers"]["Authorization"] == "Basic dXNlcjpwQHNz"
    assert EngineLease.objects.get().server == fake.url


# --- health -------------------------------------------------------------------------------------------------


def test_health_asks_openapi_json(fake: FakeGptSovits, engine_for: Engines) -> None:
    health = engine_for(fake.url).health()
    assert (health.available, health.detail, fake.probes) == (True, "ready", 1)
    assert health.latency_ms is not None and 0 < health.latency_ms < 2000


def test_health_knows_the_older_api(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.api = "old"
    health = engine_for(fake.url).health()
    assert not health.available and "not supported" in health.detail
    assert failure(engine_for(fake.url)).code == "engine_error"


def test_health_of_a_server_that_is_down(engine_for: Engines) -> None:
    health = engine_for(refused_url()).health()
    assert (health.available, health.latency_ms, health.detail) == (False, None, "cannot be reached")


def test_health_of_a_server_that_works_for_us_is_busy_and_fine(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    fake.moods.append("hang")
    thread = in_thread(lambda: speak(engine))
    until(lambda: len(fake.log) == 1)
    health = engine_for(fake.url).health()  # as another process sees it
    assert (health.available, health.detail, health.extra["waiting"]) == (True, "busy", 0)
    assert health.extra["queue_length"] == 1 and health.extra["expected_wait_seconds"] > 0
    fake.wake()
    thread.join()


def test_health_of_a_server_that_works_for_somebody_else_is_told_within_two_seconds(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    fake.moods.append("hang")
    stranger = threading.Thread(target=post, args=(fake.url,), kwargs=plain(Path("/nowhere")), daemon=True)
    stranger.start()
    until(lambda: len(fake.log) == 1)
    started = time.monotonic()
    health = engine_for(fake.url).health()
    assert time.monotonic() - started < promised(2.5)
    assert (health.available, health.detail) == (False, "no answer within 2 s: busy or down")
    fake.wake()
    stranger.join()


def test_health_of_several_servers(fake: FakeGptSovits, engine_for: Engines) -> None:
    health = engine_for(fake.url, refused_url()).health()
    assert health.available and health.detail == "1 of 2 servers available"
    assert [server["detail"] for server in health.extra["servers"]] == ["ready", "cannot be reached"]
    assert math.isfinite(health.latency_ms or math.nan)
