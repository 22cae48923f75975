"""deploy/Caddyfile, run by the real Caddy before the real server."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings
from requests.adapters import HTTPAdapter

from tests.support.audio import wav_bytes
from tests.support.covers import RATE, song
from tests.support.missing import needs
from tests.support.running.web_server import DEPLOY, Caddy, WebServer
from tests.support.tenants import Tenant
from tests.support.waiting import promised
from voiceproject.web.api import FORM_OVERHEAD_BYTES
from voices.keys.models import ApiKey

pytestmark = pytest.mark.django_db(transaction=True)
METRICS_TOKEN = "a-token-for-metrics-of-this-test"
LIMIT = 3 * 1024 * 1024
MAX_BYTES = int(re.findall(r"VOICE_MAX_BODY:(\d+)MiB", (DEPLOY / "Caddyfile").read_text(encoding="utf-8"))[0])


@pytest.fixture(scope="module")
def web(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    needs("caddy")
    server = WebServer(
        tmp_path_factory.mktemp("web"), HTTPS="true", TRUSTED_PROXIES="127.0.0.1", METRICS_TOKEN=METRICS_TOKEN
    )
    yield server
    server.close()


@pytest.fixture(scope="module")
def proxy(web: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caddy]:
    caddy = Caddy(tmp_path_factory.mktemp("proxy"), web.port, VOICE_MAX_BODY=str(LIMIT))
    yield caddy
    caddy.close()


@pytest.fixture
def client(proxy: Caddy, tenant: Tenant) -> Iterator[requests.Session]:
    with proxy.session() as session:
        session.headers["X-API-Key"] = tenant.secret
        yield session


def test_its_file_is_valid() -> None:
    needs("caddy")
    for tls in ("internal", "somebody@example.com"):
        subprocess.run(
            ["caddy", "validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")],
            env={**os.environ, "VOICE_HOST": "voice.example.com", "VOICE_TLS": tls},
            check=True,
            capture_output=True,
        )


def test_an_upload_arrives_and_a_part_of_it_is_fetched(
    proxy: Caddy, client: requests.Session, reference_wav: bytes
) -> None:
    saved = client.post(
        f"{proxy.base}/api/v1/voice/voices",
        data={"name": "Jane", "consent": "Jane Doe agreed on 3 May to have her voice cloned."},
        files={"sample": ("sample.wav", reference_wav, "audio/wav")},
        timeout=60,
    )
    assert saved.status_code == 201, saved.text
    link = saved.json()["links"]["sample"]
    assert link.startswith(f"{proxy.base}/") and saved.headers["Location"].startswith(f"{proxy.base}/")
    whole = client.get(link, timeout=30)
    part = client.get(link, headers={"Range": "bytes=1000-1999"}, timeout=30)
    assert (whole.status_code, part.status_code) == (200, 206)
    assert part.content == whole.content[1000:2000]
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(whole.content)}"


def test_events_come_one_by_one_as_they_happen(proxy: Caddy, client: requests.Session, reference_wav: bytes) -> None:
    files = {"song": wav_bytes(song(1.5), RATE), "reference_voice": reference_wav}
    created = client.post(f"{proxy.base}/api/v1/cover/jobs", files=files, timeout=30)
    assert created.status_code == 202, created.text
    links = created.json()["links"]
    with client.get(links["events"], stream=True, timeout=30) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert "Content-Encoding" not in stream.headers
        events = (json.loads(line[6:]) for line in stream.iter_lines(chunk_size=1) if line.startswith(b"data: "))
        # Were the stream held back anywhere, this first event would come only with the last one.
        assert next(events)["status"] == "queued"
        began = time.monotonic()
        assert client.post(links["cancel"], timeout=30).status_code == 200
        assert next(event["status"] for event in events if event["status"] != "queued") == "canceled"
        assert time.monotonic() - began < promised(5)


def test_the_client_s_own_address_is_handed_over_whatever_it_claims(proxy: Caddy, tenant: Tenant) -> None:
    """The client connects from 127.0.0.2, the proxy from 127.0.0.1."""

    class FromElsewhere(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, source_address=("127.0.0.2", 0))

    _, near = ApiKey.objects.issue(tenant.user, "near", allowed_networks=["127.0.0.2"])
    _, far = ApiKey.objects.issue(tenant.user, "far", allowed_networks=["203.0.113.0/24", "127.0.0.1"])
    with proxy.session() as session:
        session.mount("https://localhost", FromElsewhere())
        for secret, status in ((near, 200), (far, 403)):
            for claimed in ({}, {"X-Forwarded-For": "203.0.113.9"}, {"X-Forwarded-For": "127.0.0.1, 203.0.113.9"}):
                headers = {"X-API-Key": secret, "X-Forwarded-Proto": "http", **claimed}
                answer = session.get(f"{proxy.base}/api/v1/me", headers=headers, timeout=30)
                assert answer.status_code == status, (claimed, answer.text)


def test_numbers_for_prometheus_are_not_for_the_outside(web: WebServer, proxy: Caddy) -> None:
    authorized = {"Authorization": f"Bearer {METRICS_TOKEN}", "X-Forwarded-Proto": "https"}
    inside = requests.get(f"{web.base}/metrics", headers=authorized, timeout=30)
    assert (inside.status_code, "voiceproject_" in inside.text) == (200, True)
    for path in ("/metrics", "/metrics/", "/metrics//", "/METRICS", "//metrics", "/%6detrics", "/docs/../metrics"):
        status, _ = raw(proxy, f"GET {path} HTTP/1.1", f"Authorization: Bearer {METRICS_TOKEN}")
        assert status in (301, 308, 404), path


def test_too_large_a_body_is_refused_by_the_server_and_cut_off_by_the_proxy(
    web: WebServer, proxy: Caddy, client: requests.Session, tmp_path: Path
) -> None:
    needs("curl")

    def send(to: Caddy, size: int) -> requests.Response:
        consent = "Jane Doe agreed on 3 May to have her voice cloned."
        form = {"data": {"name": "Jane", "consent": consent}, "files": {"sample": bytes(size)}}
        return client.post(f"{to.base}/api/v1/voice/voices", **form, timeout=60)

    assert send(proxy, LIMIT + 1000).status_code in (413, 502)  # The latter by Caddy 2.6
    ours = MAX_BYTES * 1024 * 1024
    assert ours == settings.COVER_MAX_UPLOAD_SIZE + settings.MAX_UPLOAD_SIZE + FORM_OVERHEAD_BYTES
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(settings.MAX_UPLOAD_SIZE + FORM_OVERHEAD_BYTES))
    usual = Caddy(tmp_path, web.port)
    try:
        # By HTTP/2, as browsers do, or after asking first. A client of HTTP/1.1 that sends on and on, and looks for an
        # answer only then, finds its connection closed.
        refused = subprocess.run(
            ["curl", "--silent", "--show-error", "--cacert", str(usual.authority), "--max-time", "60",
             "--header", f"X-API-Key: {client.headers['X-API-Key']!s}", "--form", f"sample=@{large}",
             f"{usual.base}/api/v1/voice/voices"],
            check=True, capture_output=True,
        )  # fmt: skip
        assert json.loads(refused.stdout)["error"] == "file_too_large"
    finally:
        usual.close()


def test_an_upgrade_that_nobody_speaks_is_refused_like_any_request(proxy: Caddy) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    for path in ("/nowhere", "/api/v1/me"):
        status, body = raw(proxy, f"GET {path} HTTP/1.1", *upgrade)
        assert 400 <= status < 500, (path, status, body)
    assert raw(proxy, "GET /docs HTTP/1.1")[0] == 200


def test_plain_http_is_sent_to_tls(proxy: Caddy) -> None:
    assert raw(proxy, "GET /docs HTTP/1.1", "X-Forwarded-Proto: http")[0] == 200  # Only the proxy says what it was.
    text = (proxy.log.parent / "Caddyfile").read_text()
    port = int(text.split("http_port ")[1].split()[0])
    moved = requests.get(f"http://localhost:{port}/docs", allow_redirects=False, timeout=30)
    assert moved.status_code == 308 and moved.headers["Location"].startswith("https://localhost")


def raw(proxy: Caddy, line: str, *headers: str) -> tuple[int, bytes]:
    """A request as it is written, without a client's tidying up; its status and the beginning of its body."""
    context = ssl.create_default_context(cafile=str(proxy.authority))
    with (
        socket.create_connection(("localhost", proxy.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        closing = () if any(header.startswith("Connection:") for header in headers) else ("Connection: close",)
        head = "\r\n".join((line, f"Host: localhost:{proxy.port}", *closing, *headers, "", ""))
        connection.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (block := connection.recv(65536)):
            answer += block
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]
