"""What other services' clients are answered when they send something wrong, by a server as it is served."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.running.quick_server import Server, serving
from tests.support.tenants import Tenant, made_key

pytestmark = pytest.mark.django_db(transaction=True)

OPENAI, ELEVENLABS = "/openai/v1/audio/speech", "/elevenlabs/v1/text-to-speech/alloy"
GPTSOVITS = "/gptsovits/tts"
BODIES = {
    OPENAI: {"input": "Hello.", "voice": "alloy"},
    ELEVENLABS: {"text": "Hello."},
    GPTSOVITS: {"text": "Hello.", "text_lang": "en", "ref_audio_path": "alloy"},
    "/api/v1/voice/synthesize": {"text": "Hello."},
}


@pytest.fixture(scope="module")
def served(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


class Stranger:
    """Sends by one connection what no client means to send."""

    def __init__(self, server: Server, tenant: Tenant) -> None:
        self.base = f"http://127.0.0.1:{server.port}"
        self.session = requests.Session()
        self.headers = {"Authorization": f"Bearer {tenant.secret}", "Content-Type": "application/json"}
        self.path_key = made_key(tenant.client, kind="path")["secret"]

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        if path.startswith("/gptsovits/"):
            path = path.replace("/gptsovits/", f"/gptsovits/{self.path_key}/")
        data = body if isinstance(body, bytes) or hasattr(body, "__next__") else json.dumps(body).encode()
        return self.session.post(self.base + path, data=data, headers={**self.headers, **headers}, timeout=60)


@pytest.fixture
def stranger(server: Server, tenant: Tenant) -> Stranger:
    return Stranger(server, tenant)


def told(path: str, answer: requests.Response) -> str:
    """The message, once the whole error has the form that clients of this service read."""
    assert answer.headers["Content-Type"] == "application/json", answer.content[:200]
    body = answer.json()
    if path.startswith("/openai/"):
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
        return str(body["error"]["message"])
    if path.startswith("/elevenlabs/") and answer.status_code == 422:
        assert all(set(problem) == {"loc", "msg", "type"} for problem in body["detail"]) and body["detail"], body
        return " ".join(problem["msg"] for problem in body["detail"])
    if path.startswith("/elevenlabs/"):
        assert set(body["detail"]) == {"type", "code", "message", "status", "request_id", "param"}, body
        return str(body["detail"]["message"])
    if path.startswith("/gptsovits/"):
        assert set(body) == {"message"}, body
    else:
        assert set(body) == {"success", "error", "message", "details"}, body
    return str(body["message"])


@pytest.mark.parametrize("path", BODIES)
def test_a_compressed_body_is_refused_with_what_to_do(stranger: Stranger, path: str) -> None:
    small = gzip.compress(json.dumps(BODIES[path]).encode())
    large = gzip.compress(json.dumps({**BODIES[path], "padding": [hash(str(n)) for n in range(20_000)]}).encode())
    assert len(large) > 100_000, "more than is read before the head is looked at"
    chunks = (small[start : start + 50] for start in range(0, len(small), 50))
    for body, encoding in ((small, "gzip"), (large, "gzip"), (chunks, "gzip"), (small, "deflate, GZIP"), (b"x", "br")):
        answer = stranger.post(path, body, **{"Content-Encoding": encoding})
        message = told(path, answer)
        assert answer.status_code == 415, message
        assert f"(Content-Encoding: {encoding})" in message and "without that header" in message
    plain = stranger.post(path, BODIES[path], **{"Content-Encoding": "identity"})
    assert plain.status_code != 415


def test_a_compressed_form_of_a_page_is_refused_too(stranger: Stranger) -> None:
    answer = stranger.post("/admin/login/", gzip.compress(b"username=a&password=b"), **{"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert "Send it as it is" in told("/admin/login/", answer)
    page = stranger.session.get(f"{stranger.base}/admin/login/", headers={"Content-Encoding": "gzip"}, timeout=60)
    assert page.status_code == 200


@pytest.mark.parametrize("path", [path for path in BODIES if not path.startswith("/api/")])
def test_bad_input_is_an_error_in_the_form_that_its_clients_read(stranger: Stranger, path: str) -> None:
    good = BODIES[path]
    text = "input" if "input" in good else "text"
    bodies: list[Any] = [
        b"", b"{", b"null", b"[]", b"5", b'"text"', b"\xff\xfe{}", b"[" * 100_000, b'{"text": NaN}', b"a=b",
        {}, {**good, text: ""}, {**good, text: " \n"}, {**good, text: 5}, {**good, text: ["a"]}, {**good, text: None},
        {**good, text: {"a": 1}}, {**good, text: "x" * 60_000}, {**good, text: "a \x00 b"}, {**good, text: "\ud800"},
        {**good, "voice": "nobody", "ref_audio_path": "nobody.wav", "voice_settings": 5},
        {**good, "speed": "fast", "speed_factor": "fast", "voice_settings": {"speed": "fast"}},
        {**good, "speed": float("inf"), "speed_factor": float("nan"), "voice_settings": {"stability": 1e999}},
        {**good, "response_format": "exe", "media_type": "exe", "seed": "x"},
        {**good, "language_code": "xx", "text_lang": "xx", "stream_format": "x"},
    ]  # fmt: skip
    for body in bodies:
        answer = stranger.post(path, body)
        message = told(path, answer)
        assert 400 <= answer.status_code < 500, (body if isinstance(body, bytes) else str(body)[:100], answer.content)
        assert message and "Traceback" not in message and "Errno" not in message, message
    other = stranger.post(path, b"RIFF", **{"Content-Type": "audio/wav"})
    assert other.status_code == 415, other.content
    told(path, other)


@pytest.mark.parametrize("path", [path for path in BODIES if not path.startswith("/api/")])
def test_wrong_methods_paths_and_keys_are_told_in_that_form_too(stranger: Stranger, path: str) -> None:
    session, url = stranger.session, stranger.base + path
    answers = {405: session.put(url, json={}, headers=stranger.headers, timeout=60)}
    if not path.startswith("/gptsovits/"):
        answers[401] = session.post(url, json=BODIES[path], headers={"Authorization": "Bearer wrong"}, timeout=60)
    for status, answer in answers.items():
        assert answer.status_code == status, answer.content
        assert told(path, answer)
    nowhere = session.get(f"{stranger.base}/{path.split('/')[1]}/v1/nowhere", headers=stranger.headers, timeout=60)
    assert nowhere.status_code == 404
    assert told(path, nowhere)
