"""What the web server does before and around the views, over real sockets: bodies, clients that stall, open streams."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from django.conf import settings
from django.utils import timezone

from tests.fakes.gptsovits import tone
from tests.support.audio import wav_bytes
from tests.support.running.processes import database_url, processes_of
from tests.support.running.quick_server import Answer, Server, ask, serving
from tests.support.running.servers import free_port
from tests.support.tenants import Tenant
from tests.support.waiting import promised, until
from voiceproject.web.threads import in_thread
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)

FORM = "Content-Type: multipart/form-data; boundary=b\r\n"
SPEAK = "/api/v1/voice/synthesize"


@pytest.fixture(scope="module")
def served(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "tests.programs.socket_serving", WEB_STREAMS_PER_TENANT="60") as server:
        yield server


def send(server: Server, path: str, headers: str, body: bytes = b"", method: str = "POST") -> socket.socket:
    connection = server.connect()
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + body)
    return connection


def chunked(*blocks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(block), block) for block in blocks)


def ends_of(log: Path, path: str) -> list[dict[str, str]]:
    """What the access log tells of the ends of answers to GETs of a path."""
    lines = [line for line in log.read_text().splitlines() if f": GET {path} ended " in line]
    return [dict(pair.split("=", 1) for pair in line.split() if "=" in pair) for line in lines]


def threads_of(server: Server) -> int:
    """Of the process that serves."""
    (child,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return len(list(Path(f"/proc/{child}/task").iterdir()))


# --- threads ---


def test_actions_run_beside_each_other_and_a_canceled_one_is_waited_for() -> None:
    together = threading.Barrier(4)
    gone, ended = threading.Event(), threading.Event()

    def work() -> None:
        gone.wait(10)
        time.sleep(0.1)
        ended.set()

    async def run() -> None:
        await asyncio.gather(*(in_thread(together.wait, 10) for _ in range(4)))
        task = asyncio.create_task(in_thread(work, gone=gone))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(run())


@pytest.mark.parametrize("cleanup", [False, True])
def test_a_cleanup_is_done_even_if_it_is_canceled_while_all_threads_are_busy(cleanup: bool) -> None:
    free, done = threading.Event(), threading.Event()

    async def run() -> None:
        busy = [asyncio.create_task(in_thread(free.wait, 10)) for _ in range(settings.WEB_THREADS)]
        task = asyncio.create_task(in_thread(done.set, cleanup=cleanup))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not done.is_set()
        free.set()
        await asyncio.gather(*busy)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert done.is_set() == cleanup


# --- bodies ---


@pytest.mark.parametrize(
    ("path", "method", "key", "length", "status", "code"),
    [
        (SPEAK, "POST", None, 8_000_000, 401, "missing_api_key"),
        (SPEAK, "POST", "vck_wrong", 8_000_000, 401, "invalid_api_key"),
        (SPEAK, "POST", "", 90_000_000, 413, "file_too_large"),
        (SPEAK, "PUT", "", 8_000_000, 405, "method_not_allowed"),
        ("/api/v1/cover/jobs", "POST", "", 8_000_000, 403, "permission_denied"),
        ("/admin/login/", "POST", None, 8_000_000, 413, "file_too_large"),
        ("/api/v1/nowhere", "POST", None, 8_000_000, 404, "not_found"),
    ],
)
@pytest.mark.parametrize("expects", [False, True])
def test_what_the_head_tells_is_answered_before_the_body_is_sent(
    server: Server, path: str, method: str, key: str | None, length: int, status: int, code: str, expects: bool
) -> None:
    tenant = Tenant("carol", scopes=["synthesize"])
    headers = f"{FORM}Content-Length: {length}\r\n" + ("Expect: 100-continue\r\n" if expects else "")
    if key is not None:
        headers += f"X-API-Key: {key or tenant.secret}\r\n"
    answer = Answer(send(server, path, headers, method=method))
    assert (answer.status, answer.json()["error"]) == (status, code)
    assert answer.headers["connection"] == "close"
    assert f"request_id={answer.headers['x-request-id']}" in server.log.read_text()
    assert answer.file.read() == b"", "what was not read is no next request"
    answer.hang_up()


def test_other_services_clients_are_refused_early_in_their_shape(server: Server, tenant: Tenant) -> None:
    for path, where in (("/openai/v1/audio/speech", "error"), ("/elevenlabs/v1/text-to-speech/alloy", "detail")):
        headers = (
            f"Authorization: Bearer {tenant.secret}\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n"
        )
        answer = Answer(send(server, path, headers))
        assert answer.status == 413
        assert "1048576" in answer.json()[where]["message"]
        answer.hang_up()


def test_who_is_let_in_is_told_to_go_on(server: Server, tenant: Tenant) -> None:
    body = json.dumps({"text": "Hello."}).encode()
    headers = f"X-API-Key: {tenant.secret}\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    connection = send(server, SPEAK, f"{headers}Content-Length: {len(body)}\r\n")
    go_on = b""
    while not go_on.endswith(b"\r\n\r\n"):
        go_on += connection.recv(1)
    assert go_on.startswith(b"HTTP/1.1 100 ")
    connection.sendall(body)
    answer = Answer(connection)
    assert (answer.status, list(answer.json()["details"])) == (400, ["reference_audio"])
    answer.hang_up()


def test_a_chunked_body_is_a_body_and_the_connection_serves_on(server: Server, tenant: Tenant) -> None:
    headers = f"X-API-Key: {tenant.secret}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    body = chunked(b'{"text": ', b'"Hello."}') + b"0\r\n\r\n"
    answer = Answer(send(server, SPEAK, headers, body + b"GET /api/v1/me HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert (answer.status, list(answer.json()["details"])) == (400, ["reference_audio"])
    assert answer.file.readline().startswith(b"HTTP/1.1 401")
    answer.hang_up()


def test_a_chunked_upload_is_served(server: Server, tenant: Tenant) -> None:
    wav = wav_bytes(tone(150, 5.0, 24_000), 24_000)
    prepared = requests.Request(
        "POST", f"http://127.0.0.1:{server.port}{SPEAK}", headers={"X-API-Key": tenant.secret},
        data={"text": "One sentence.", "language": "en"}, files={"reference_audio": ("r.wav", wav)},
    ).prepare()  # fmt: skip
    assert isinstance(prepared.body, bytes)
    blocks = [prepared.body[at : at + 50_000] for at in range(0, len(prepared.body), 50_000)]
    headers = dict(prepared.headers)
    del headers["Content-Length"]
    answer = requests.post(prepared.url, headers=headers, data=iter(blocks), timeout=60)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "audio/wav")


@pytest.mark.parametrize(
    ("kind", "limit"), [("multipart/form-data; boundary=b", 11_534_336), ("application/json", 1_048_576)]
)
def test_endless_chunks_are_counted(server: Server, tenant: Tenant, kind: str, limit: int) -> None:
    headers = f"X-API-Key: {tenant.secret}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n"
    connection = send(server, SPEAK, headers)
    sent = 0

    def flood() -> None:
        nonlocal sent
        try:
            while sent < 100 * limit:
                connection.sendall(chunked(bytes(65_536)))
                sent += 65_536
        except OSError:
            pass

    thread = threading.Thread(target=flood)
    thread.start()
    answer = Answer(connection)
    assert (answer.status, answer.json()["error"]) == (413, "file_too_large")
    answer.hang_up()
    thread.join(30)
    assert limit < sent < 100 * limit


def test_endless_chunks_of_nobody_are_not_read(server: Server) -> None:
    connection = send(server, SPEAK, f"{FORM}Transfer-Encoding: chunked\r\n", chunked(bytes(65_536), bytes(1000)))
    answer = Answer(connection)
    assert (answer.status, answer.json()["error"]) == (401, "missing_api_key")
    answer.hang_up()


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -3\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
    ids=["both lengths", "two lengths", "a negative length", "no chunk", "many headers"],
)
def test_what_contradicts_itself_is_refused_and_closed(server: Server, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        answer = Answer(connection)
        assert answer.status in (400, 431)
        assert answer.json()["error"] == "validation_error"
        assert answer.file.read() == b""


@pytest.mark.parametrize("complete", [True, False], ids=["whole", "broken off"])
def test_a_client_that_sends_no_more_gets_its_answer(server: Server, complete: bool) -> None:
    length = 2 if complete else 1000
    connection = send(server, "/api/v1/me", f"Content-Length: {length}\r\n", b"{}", method="GET")
    connection.shutdown(socket.SHUT_WR)
    answer = Answer(connection)
    assert answer.status == (401 if complete else 400)
    assert answer.json()["success"] is False
    assert answer.file.read() == b""
    answer.hang_up()


def test_a_body_of_a_byte_now_and_then_comes_to_an_end(server: Server) -> None:
    began = time.monotonic()
    connection = send(server, "/admin/login/", "Content-Type: text/plain\r\nContent-Length: 1000\r\n")
    connection.settimeout(0.3)
    answered = b""
    while not answered and time.monotonic() - began < 30:
        try:
            connection.sendall(b"x")
            answered = connection.recv(100)
        except TimeoutError:
            continue
    assert answered.startswith(b"HTTP/1.1 4")
    assert 1.5 < time.monotonic() - began < 15
    connection.close()


# --- downloads ---


def test_more_slow_downloads_than_threads_hold_nobody_up_and_end(server: Server, tenant: Tenant) -> None:
    job = Synthesis.objects.create(
        tenant=tenant.user, status="succeeded", response_format="wav", finished_at=timezone.now()
    )
    folder = server.log.parent / "data/media"
    (folder / "big.wav").write_bytes(bytes(30_000_000))
    Synthesis.objects.filter(pk=job.pk).update(audio="big.wav")
    slow = []
    for _ in range(12):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(
            f"GET /api/v1/voice/syntheses/{job.pk}/audio HTTP/1.1\r\nHost: localhost\r\n"
            f"X-API-Key: {tenant.secret}\r\n\r\n".encode()
        )
        assert connection.recv(15).startswith(b"HTTP/1.1 200")
        slow.append(connection)
    assert server.answers()
    fast = requests.get(
        f"http://127.0.0.1:{server.port}/api/v1/voice/syntheses/{job.pk}/audio",
        headers={"X-API-Key": tenant.secret}, timeout=60,
    )  # fmt: skip
    assert len(fast.content) == 30_000_000
    time.sleep(2)
    for connection in slow:
        with pytest.raises(ConnectionResetError):
            while connection.recv(1_000_000):
                pass
        connection.close()
    path = f"/api/v1/voice/syntheses/{job.pk}/audio"
    until(lambda: [end["ended"] for end in ends_of(server.log, path)].count("client_too_slow") == 12, 10)
    slow_end = ends_of(server.log, path)[-1]
    assert 0 < int(slow_end["bytes"]) < 30_000_000 and int(slow_end["duration_ms"]) >= 1000
    assert len(slow_end["request_id"]) == 32 and slow_end["tenant"] == str(tenant.user.pk)


# --- events ---


def job_of(tenant: Tenant) -> Synthesis:
    return Synthesis.objects.create(tenant=tenant.user, api_key=tenant.key, text="x", status="queued", background=True)


def watch(server: Server, tenant: Tenant, job: Synthesis) -> Answer:
    path = f"/api/v1/voice/syntheses/{job.pk}/events"
    return Answer(send(server, path, f"X-API-Key: {tenant.secret}\r\n", method="GET"))


def test_many_event_streams_and_waits_hold_no_thread(server: Server, tenant: Tenant, other: Tenant) -> None:
    job = job_of(tenant)
    streams = [watch(server, tenant, job) for _ in range(40)]
    assert all(b"queued" in (stream.chunk() or b"") for stream in streams)
    path = f"/api/v1/voice/syntheses/{job.pk}"
    waits = [send(server, path, f"X-API-Key: {tenant.secret}\r\nPrefer: wait=60\r\n", method="GET") for _ in range(20)]
    until(lambda: server.log.read_text().count(f"GET {path} 200") == len(waits), 30)
    assert watch(server, tenant, job).status == 503
    theirs = watch(server, other, job_of(other))
    assert theirs.status == 200, "one tenant's streams take no place of another's"
    theirs.hang_up()
    assert server.answers()
    assert threads_of(server) < 20
    assert job.cancel()
    for stream in streams:
        rest, whole = stream.rest()
        assert whole and b'"canceled"' in rest
        stream.hang_up()
    for connection in waits:
        answer = Answer(connection)
        assert (answer.status, answer.json()["status"]) == (200, "canceled")
        assert answer.headers["preference-applied"] == "wait=60"
        answer.hang_up()
    for place, count in ((f"{path}/events", 40), (path, 20)):
        until(lambda place=place, count=count: len(ends_of(server.log, place)) == count, 10)  # type: ignore[misc]
        assert all(end["ended"] == "done" and int(end["bytes"]) > 100 for end in ends_of(server.log, place))


def test_who_hangs_up_gives_its_place_back_within_a_second(server: Server, tenant: Tenant) -> None:
    job = job_of(tenant)
    streams = [watch(server, tenant, job) for _ in range(60)]
    assert watch(server, tenant, job).status == 503
    for stream in streams:
        stream.hang_up()
    began = time.monotonic()
    until(lambda: watch(server, tenant, job).status == 200, 10)
    assert time.monotonic() - began < promised(2)
    until(lambda: len(ends_of(server.log, f"/api/v1/voice/syntheses/{job.pk}/events")) >= 60, 10)
    ends = ends_of(server.log, f"/api/v1/voice/syntheses/{job.pk}/events")
    assert {end["ended"] for end in ends} == {"client_gone"}


@pytest.mark.parametrize("how", ["revoked", "expired", "blocked", "narrowed"])
def test_streams_end_with_their_key(server: Server, tenant: Tenant, other: Tenant, how: str) -> None:
    job = job_of(tenant)
    stream, theirs = watch(server, tenant, job), watch(server, other, job_of(other))
    path = f"/api/v1/voice/syntheses/{job.pk}"
    wait = send(server, path, f"X-API-Key: {tenant.secret}\r\nPrefer: wait=60\r\n", method="GET")
    stream.chunk()
    theirs.chunk()
    server.fake.hold_at = 1
    speech = Answer(ask(server, tenant, stream="true"))
    speech.at_least(80_000)
    key, now = tenant.key, timezone.now()
    began = time.monotonic()
    if how == "blocked":
        tenant.user.is_active = False
        tenant.user.save()
    elif how == "narrowed":
        key.scopes = ["usage"]
        key.save()
    else:
        setattr(key, "revoked_at" if how == "revoked" else "expires_at", now)
        key.save()
    rest, whole = stream.rest()
    assert whole and rest.startswith(b"event: error\ndata: ")
    assert json.loads(rest.split(b"data: ")[1])["error"] == "invalid_api_key"
    answer = Answer(wait)
    assert (answer.status, answer.json()["error"]) == (401, "invalid_api_key")
    server.fake.gate.set()
    _, whole = speech.rest()
    assert not whole
    assert time.monotonic() - began < promised(6)
    theirs.connection.settimeout(0.5)
    with pytest.raises(TimeoutError):
        theirs.connection.recv(1)
    for one in (stream, theirs, answer, speech):
        one.hang_up()
    until(lambda: ends_of(server.log, f"{path}/events") and ends_of(server.log, path), 10)
    for ended in (f"{path}/events", path):
        assert [end["ended"] for end in ends_of(server.log, ended)] == ["key_ended"]


# --- WebSockets ---


def open_socket(server: Server, path: str = "/echo/anna", **options: Any) -> websocket.WebSocket:
    return websocket.create_connection(f"ws://127.0.0.1:{server.port}{path}", timeout=20, **options)


def test_a_socket_speaks_in_both_directions(server: Server, tenant: Tenant) -> None:
    ways: list[dict[str, Any]] = [
        {"header": {"xi-api-key": tenant.secret}},
        {"header": {"X-API-Key": tenant.secret}},
        {"header": {"Authorization": f"Bearer {tenant.secret}"}},
        {"subprotocols": ["realtime", f"xi-api-key.{tenant.secret}"]},
    ]
    for options in ways:
        ours = open_socket(server, **options)
        assert ours.getsubprotocol() == ("realtime" if "subprotocols" in options else None)
        ours.send("hello")
        assert ours.recv() == "anna: hello"
        ours.send_binary(bytes(1000))
        assert ours.recv() == bytes(1000)
        ours.send("bye")
        opcode, data = ours.recv_data()
        assert (opcode, int.from_bytes(data[:2])) == (8, 1000)
        ours.close()


@pytest.mark.parametrize(("path", "key", "status"), [
    ("/echo/anna", None, 401), ("/echo/anna", "vck_wrong", 401), ("/nowhere", "", 404), ("/echo/anna", "narrow", 403),
])  # fmt: skip
def test_a_socket_is_refused_by_an_ordinary_answer(
    server: Server, tenant: Tenant, path: str, key: str | None, status: int
) -> None:
    narrow = Tenant("dave", scopes=["usage"])
    secret = {"": tenant.secret, "narrow": narrow.secret}.get(key or "", key)
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        open_socket(server, path, header={"X-API-Key": secret} if key is not None else {})
    assert refused.value.status_code == status
    assert json.loads(refused.value.resp_body or b"")["success"] is False
    assert refused.value.resp_headers is not None
    assert f"request_id={refused.value.resp_headers['x-request-id']}" in server.log.read_text()


def close_code(ours: websocket.WebSocket) -> int:
    while True:
        opcode, data = ours.recv_data(control_frame=True)
        if opcode == 8:
            return int.from_bytes(data[:2])


def test_sockets_that_misbehave_are_ended(server: Server, tenant: Tenant) -> None:
    key = {"X-API-Key": tenant.secret}
    large = open_socket(server, header=key)
    try:
        large.send_binary(bytes(3_000_000))
        assert close_code(large) == 1009
    except ConnectionError:
        pass  # Who still sends may lose the last word.
    silent, pinging = open_socket(server, header=key), open_socket(server, header=key)
    broken = open_socket(server, header=key)
    broken.send("fail")
    assert close_code(broken) == 1011
    for _ in range(3):
        pinging.ping()
        time.sleep(0.3)
    assert close_code(silent) == 1008
    assert close_code(pinging) == 1008, "pings are no messages"


def test_a_socket_that_never_reads_is_cut_off(server: Server, tenant: Tenant) -> None:
    ours = open_socket(
        server, header={"X-API-Key": tenant.secret}, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
    )
    ours.send("flood")
    time.sleep(3)
    with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
        while ours.recv():
            pass
    assert server.answers()


def test_sockets_are_counted_and_end_with_their_key(server: Server, tenant: Tenant) -> None:
    key = {"X-API-Key": tenant.secret}
    sockets = [open_socket(server, header=key) for _ in range(60)]
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        open_socket(server, header=key)
    assert refused.value.status_code == 503
    for ours in sockets:
        ours.shutdown()

    def opens() -> bool:
        try:
            return open_socket(server, header=key).connected
        except websocket.WebSocketBadStatusException:
            return False  # It has not seen all of them go.

    until(opens, 10)
    last = open_socket(server, header=key)
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.5):
            try:
                last.send("still here")
            except (OSError, websocket.WebSocketException):
                return

    thread = threading.Thread(target=talk)
    thread.start()
    tenant.key.revoked_at = timezone.now()
    tenant.key.save()
    assert close_code(last) == 1008
    stop.set()
    thread.join(10)
    until(lambda: {"client_gone", "key_ended"} <= {end["ended"] for end in ends_of(server.log, "/echo/anna")}, 10)


# --- the end, and the old command ---


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def run(*command: str, **environ: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        environment |= {"DATA_DIR": str(tmp_path / "data"), "ENV_FILE": os.devnull, "DATABASE_URL": database_url()}
        with (tmp_path / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *command],
                cwd=settings.BASE_DIR,
                env={**environment, **environ},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait(10)


def test_the_server_ends_with_open_streams(
    start: Callable[..., subprocess.Popen[bytes]], tenant: Tenant, tmp_path: Path
) -> None:
    port = free_port()
    config = ("--config", "python:voiceproject.serving")
    process = start("voiceproject.asgi", *config, "--bind", f"127.0.0.1:{port}", VOICEPROJECT_LIFELINE="1")
    job = job_of(tenant)
    path = f"/api/v1/voice/syntheses/{job.pk}"

    def connect(path: str, headers: str = "") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {tenant.secret}\r\n{headers}\r\n"
        connection.sendall(head.encode())
        return connection

    def answers() -> bool:
        try:
            return (
                requests.get(f"http://127.0.0.1:{port}/favicon.ico", allow_redirects=False, timeout=20).status_code
                == 302
            )
        except requests.ConnectionError:
            return False

    until(answers, 60)
    stream = Answer(connect(f"{path}/events"))
    assert b"queued" in (stream.chunk() or b"")
    wait = connect(path, "Prefer: wait=60\r\n")
    half = socket.create_connection(("127.0.0.1", port), timeout=30)
    half.sendall(b"GET /health HTTP/1.1\r\nHo")
    path = f"ws://127.0.0.1:{port}/elevenlabs/v1/text-to-speech/alloy/multi-stream-input"
    speaks = websocket.create_connection(path, timeout=20, header={"xi-api-key": tenant.secret})
    speaks.send('{"text": "Waits for more "}')
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    rest, whole = stream.rest()
    assert whole and rest == b"event: stopping\ndata: {}\n\n"
    held = Answer(wait)
    assert (held.status, held.json()["status"]) == (200, "queued")
    assert close_code(speaks) == 1012
    assert process.wait(20) == 0
    assert time.monotonic() - began < promised(4)
    for ended in (f"/api/v1/voice/syntheses/{job.pk}/events", "/elevenlabs/v1/text-to-speech/alloy/multi-stream-input"):
        assert [end["ended"] for end in ends_of(tmp_path / "server.log", ended)] == ["server_stopped"]


def test_a_worker_whose_main_process_was_killed_ends(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    place = tmp_path / "web.sock"
    process = start("voiceproject.asgi", "--config", "python:voiceproject.serving", "--bind", f"unix:{place}")

    def is_served() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(place)) == 0

    until(is_served, 60)
    until(lambda: len(processes_of(str(tmp_path / "data"))) == 2, 60)
    process.kill()
    until(lambda: not processes_of(str(tmp_path / "data")), 20)


def test_the_old_command_serves_on_a_unix_socket(
    start: Callable[..., subprocess.Popen[bytes]], tenant: Tenant, tmp_path: Path
) -> None:
    place = tmp_path / "web.sock"
    key, secret = type(tenant.key).objects.issue(tenant.user, "inside", allowed_networks=["10.1.2.3"])
    start(
        "voiceproject.wsgi", "--config", "python:voiceproject.serving", "--bind", f"unix:{place}",
        TRUSTED_PROXIES="unix",
    )  # fmt: skip

    def status(*headers: str) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(place))
            except OSError:
                return 0
            head = "\r\n".join(("GET /api/v1/me HTTP/1.0", "Host: localhost", f"X-API-Key: {secret}", *headers))
            connection.sendall(f"{head}\r\n\r\n".encode())
            return int(connection.makefile("rb").readline().split()[1])

    until(lambda: status() > 0, 60)
    assert status("X-Forwarded-For: 10.1.2.3") == 200
    assert status("X-Forwarded-For: 10.1.2.4") == 403
    assert status("X-Forwarded-For: 10.1.2.3", "SCRIPT_NAME: /api") == 200
    assert key.pk
