"""Headers by which a proxy may say where a request was meant to go: a client sends them too, so none is believed."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.running.web_server import WebServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    web = WebServer(tmp_path_factory.mktemp("web"))
    yield web
    web.close()


def status_of(server: WebServer, path: str, *headers: str) -> tuple[int, bytes]:
    """Asked from this machine, whose proxies servers trust by default."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        lines = (f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", "")
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return int(answer.split()[1]), answer


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Script-Name", "X-Script-Name", "X-Forwarded-Prefix"])
def test_no_header_takes_a_part_off_the_path(server: WebServer, name: str) -> None:
    status, answer = status_of(server, "/health/admin/login/", f"{name}: /health")
    assert status in (400, 404) and b"password" not in answer


@pytest.mark.parametrize("name", ["PATH_INFO", "Path-Info", "X-Original-URL", "X-Rewrite-URL", "X-Original-URI"])
def test_no_header_is_a_path(server: WebServer, name: str) -> None:
    status, answer = status_of(server, "/nowhere", f"{name}: /admin/login/")
    assert status in (400, 404) and b"password" not in answer
    status, answer = status_of(server, "/docs", f"{name}: /admin/login/")
    assert status in (200, 400) and b'name="password"' not in answer


def test_without_such_a_header_the_sign_in_is_where_it_is(server: WebServer) -> None:
    status, answer = status_of(server, "/admin/login/")
    assert status == 200 and b'name="password"' in answer


@pytest.mark.parametrize("name", ["X-Forwarded-Proto", "X-Forwarded-Ssl", "X-Forwarded-Protocol"])
def test_no_header_makes_plain_http_tls_where_no_proxy_is_told_of(server: WebServer, name: str) -> None:
    value = "on" if name.endswith("Ssl") else "ssl" if name.endswith("col") else "https"
    _, answer = status_of(server, "/favicon.ico", f"{name}: {value}")
    assert b"https://" not in answer
    _, answer = status_of(server, "/admin/login/", f"{name}: {value}")
    assert b"; Secure" not in answer
