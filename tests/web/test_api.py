"""What all of the API shares: the envelope, request ids, slashes, CORS, documentation, health, limits on bodies."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.core.management import call_command
from django.test import Client, RequestFactory
from django.urls import path, reverse
from rest_framework.test import APIClient

import voiceproject.urls
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import Tenant
from voiceproject import wsgi
from voiceproject.errors import STATUS_OF_CODE
from voiceproject.operations import health
from voiceproject.telemetry.logging import JsonFormatter, TextFormatter, bind
from voices.engines.interface import EngineHealth

ENVELOPE = {"success", "error", "message", "details"}


def explode(request: Any) -> None:
    raise RuntimeError("the password is swordfish")


urlpatterns = [*voiceproject.urls.urlpatterns, path("explode", explode)]
handler400, handler404, handler500 = (
    voiceproject.urls.handler400, voiceproject.urls.handler404, voiceproject.urls.handler500,
)  # fmt: skip


def assert_envelope(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["error"]) == (status, code)
    assert set(response.json()) == ENVELOPE
    assert response.json()["success"] is False
    assert STATUS_OF_CODE[code] == status
    assert response["X-Request-ID"]


def test_every_error_wears_the_envelope(api: APIClient, engine: FakeEngine) -> None:
    assert_envelope(api.get("/nowhere"), 404, "not_found")
    assert_envelope(api.get("/api/v1/cover/jobs/not-a-uuid"), 404, "not_found")
    assert_envelope(api.get("/api/v1/cover/jobs/00000000-0000-4000-8000-000000000000"), 404, "not_found")
    refused = api.put("/api/v1/voice/synthesize", {})
    assert_envelope(refused, 405, "method_not_allowed")
    assert "POST" in refused["Allow"]
    assert_envelope(api.get("/api/v1/voice/synthesize"), 405, "method_not_allowed")
    assert_envelope(APIClient().get("/api/v1/cover/jobs"), 401, "missing_api_key")
    assert_envelope(Client().get("/docs", headers={"Host": "evil.example"}), 400, "validation_error")


def test_a_host_name_that_is_not_ours_is_one_line_in_the_log(db: None, caplog: pytest.LogCaptureFixture) -> None:
    assert Client().get("/openapi.json", headers={"Host": "evil.example"}).status_code == 400
    told = [record for record in caplog.records if record.levelno > logging.INFO]
    assert [record.levelname for record in told] == ["WARNING"]
    assert "'evil.example', which ALLOWED_HOSTS does not have" in told[0].getMessage()
    assert told[0].exc_info is None


@pytest.mark.urls("tests.web.test_api")
def test_a_crash_tells_the_request_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    response = Client(raise_request_exception=False).get("/explode", headers={"X-Request-ID": "my-id.7"})
    assert_envelope(response, 500, "internal_error")
    assert "swordfish" not in response.content.decode()
    assert response["X-Request-ID"] == "my-id.7"
    assert any(record.exc_info and "swordfish" in str(record.exc_info[1]) for record in caplog.records)


@pytest.mark.parametrize("odd", ["", "a b", "x" * 65, "a\tb", "é"])
def test_an_odd_request_id_is_replaced(db: None, engine: FakeEngine, odd: str) -> None:
    answered = Client().get("/health", headers={"X-Request-ID": odd})["X-Request-ID"]
    assert answered != odd
    assert len(answered) == 32


def test_a_trailing_slash_is_answered_and_not_redirected(api: APIClient, engine: FakeEngine) -> None:
    assert api.get("/api/v1/cover/jobs/").status_code == 200
    assert api.post("/api/v1/voice/synthesize/", {}).json()["error"] == "validation_error"
    assert Client().get("/health/").status_code == 200
    assert Client().get("/admin").status_code == 301


def test_an_id_in_capitals_is_the_same_id(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> None:
    made = api.post("/api/v1/voice/synthesize", {"text": "hello", "reference_audio": upload(reference_wav)})
    of_it = f"/api/v1/voice/syntheses/{made['X-Synthesis-ID'].upper()}"
    assert api.get(of_it).json()["synthesis_id"] == made["X-Synthesis-ID"]
    assert b"".join(api.get(f"{of_it}/audio/")) == made.content
    assert api.delete(of_it).status_code == 204


def test_every_wrong_field_is_told_at_once(api: APIClient, engine: FakeEngine) -> None:
    refused = api.post("/api/v1/voice/synthesize", {"txt": "hi", "language": "ko", "speed": "9"}).json()
    assert set(refused["details"]) == {"txt", "text", "reference_audio", "language", "speed"}
    refused = api.post("/api/v1/cover/jobs", {"model_id": "nope", "pitch_shift": "25"}).json()
    assert set(refused["details"]) == {"reference_voice", "song", "model_id", "pitch_shift"}
    assert refused["details"]["model_id"][0].startswith("There is no model nope")
    refused = api.post("/api/v1/voice/synthesize", [], format="json").json()
    assert refused["details"] == {"non_field_errors": [refused["message"]]}


@pytest.mark.parametrize("listed", ["voice/syntheses", "voice/voices", "cover/jobs", "keys", "webhooks/deliveries"])
def test_no_list_takes_what_it_does_not_know(api: APIClient, engine: FakeEngine, listed: str) -> None:
    for name, value in (("page_size", "0"), ("page_size", "201"), ("limit", "5")):
        refused = api.get(f"/api/v1/{listed}", {name: value})
        assert_envelope(refused, 400, "validation_error")
        assert list(refused.json()["details"]) == [name]
    assert api.get(f"/api/v1/{listed}", {"page_size": "200", "cursor": ""}).status_code == 200


@pytest.mark.parametrize("offset", ["+02:00", "%2B02:00", "+0200"])
def test_a_time_in_a_query_needs_no_escape(api: APIClient, engine: FakeEngine, offset: str) -> None:
    for listed in ("voice/syntheses", "cover/jobs", "webhooks/deliveries"):
        assert api.get(f"/api/v1/{listed}?created_after=2026-11-24T00:00:00.5{offset}").status_code == 200
    assert_envelope(api.get("/api/v1/cover/jobs?created_after=2026-11-24T00:00+2"), 400, "validation_error")


def test_accept_refuses_nothing(api: APIClient, engine: FakeEngine) -> None:
    for accept in ("audio/wav", "text/html", "application/x-nonsense", "*/*"):
        assert api.get("/api/v1/cover/jobs", headers={"Accept": accept}).status_code == 200
    assert api.get("/api/v1/nowhere", headers={"Accept": "text/html"}).json()["error"] == "not_found"


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize("path", ["/nowhere", "/account/nothing", "/static/nothing.css", "/health/nothing"])
def test_a_browser_gets_a_page_where_there_is_nothing(db: None, path: str) -> None:
    page = Client().get(path, headers={"Accept": BROWSER})
    assert page.status_code == 404 and page["Content-Type"].startswith("text/html")
    html = page.content.decode()
    assert "There is nothing here" in html and ('href="/account"' if "account" in path else 'href="/"') in html
    assert {"Accept", "Accept-Language"} <= {name.strip() for name in page["Vary"].split(",")}
    assert page["Content-Security-Policy"].startswith("default-src 'self'")
    chinese = Client().get(path, headers={"Accept": BROWSER, "Accept-Language": "zh-CN"}).content.decode()
    assert "这里没有内容" in chinese and 'lang="zh-hans"' in chinese
    for accept in ("*/*", "application/json", "application/json, text/html;q=0.5", ""):
        answer = Client().get(path, headers={"Accept": accept} if accept else {})
        assert_envelope(answer, 404, "not_found")
        assert "Accept" in answer["Vary"]


@pytest.mark.parametrize("path", ["/api/nothing", "/api/v1/nothing", "/openai/v1/nothing", "/elevenlabs/v1/nothing"])
def test_where_programs_ask_there_are_no_pages(db: None, path: str) -> None:
    answer = Client().get(path, headers={"Accept": BROWSER})
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/json")


@pytest.mark.django_db
def test_what_nobody_may_do_in_the_console_is_told_on_a_page(operator: Client) -> None:
    user = User.objects.create(username="somebody")
    url = reverse("admin:auth_user_delete", args=[user.pk])
    page = operator.get(url, headers={"Accept": BROWSER})
    assert page.status_code == 403 and "This is not allowed" in page.content.decode()
    assert 'href="/admin/"' in page.content.decode()
    assert operator.get(url).json()["error"] == "permission_denied"


def test_a_body_over_the_limit_is_refused_before_it_is_read(tenant: Tenant, settings: Any) -> None:
    settings.MAX_UPLOAD_SIZE = 1000
    limit = 1000 + 1024 * 1024
    response = tenant.client.post(
        "/api/v1/voice/synthesize", b"x" * (limit + 1), content_type="multipart/form-data; boundary=x"
    )
    assert_envelope(response, 413, "file_too_large")
    assert response.json()["details"] == {"limit": 1000, "found": limit + 1}
    nobody = APIClient().post(
        "/api/v1/voice/synthesize", b"x" * (limit + 1), content_type="multipart/form-data; boundary=x"
    )
    assert_envelope(nobody, 401, "missing_api_key")
    endless = tenant.client.generic(
        "POST", "/api/v1/voice/synthesize", b"", HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH=""
    )
    assert_envelope(endless, 400, "validation_error")


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
@pytest.mark.parametrize(
    "url", ["/api/v1/cover/jobs", "/api/v1/voice/synthesize", "/api/v1/keys", "/openai/v1/audio/speech"]
)
def test_only_files_make_a_body_large(tenant: Tenant, url: str, content_type: str) -> None:
    """What is parsed in memory is small: a hundred megabytes of brackets would be gigabytes of lists."""
    body = b"[" + b"[]," * 400_000 + b"[]]"
    response = tenant.client.post(url, body, content_type=content_type)
    assert response.status_code == 413, response.content
    if "openai" not in url:
        assert_envelope(response, 413, "file_too_large")
        assert response.json()["details"] == {"limit": 1024 * 1024, "found": len(body)}


@pytest.mark.parametrize("url", ["/admin/login/", "/account/signin", "/", "/nowhere", "/admin/voices/voice/"])
def test_a_page_reads_no_large_body_of_anybody(
    db: None, url: str, monkeypatch: pytest.MonkeyPatch, leftovers: Any
) -> None:
    def spool(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(TemporaryFileUploadHandler, "new_file", spool)
    large = SimpleUploadedFile("large.bin", b"x" * 1024 * 1024)
    response = Client(enforce_csrf_checks=True).post(url, {"username": "x", "file": large})
    assert_envelope(response, 413, "file_too_large")
    assert leftovers() == []


@pytest.mark.parametrize(
    ("cursor", "code"),
    [("cD1hYmM=", 400), ("abc", 400), ("cD0yMDIwLTk5LTk5", 400), ("cD0wMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjAw", 400)],
)
def test_a_made_up_cursor_is_refused(api: APIClient, engine: FakeEngine, cursor: str, code: int) -> None:
    response = api.get("/api/v1/cover/jobs", {"cursor": cursor})
    assert_envelope(response, code, "validation_error")
    assert "cursor" in response.json()["details"]


@pytest.mark.parametrize(
    "body", [b'{"language": "\\ud800"}', b'{"\\ud800": 1}', b"[" * 100_000, b'{"a":' * 50_000, b'{"text": 5e999}',
     b'{"text": "\xe9"}', b'{"seed": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_odd_json_is_refused_and_does_not_crash(api: APIClient, engine: FakeEngine, body: bytes) -> None:
    response = api.post("/api/v1/voice/synthesize", body, content_type="application/json")
    assert_envelope(response, 400, "validation_error")
    assert not re.search(r"sys\.|codec|Error\b", response.json()["message"])


def test_pages_take_no_form_and_errors_of_documents_are_json(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    for page in ("/", "/docs", "/redoc", "/openapi.json", "/health"):
        response = client.post(page)
        assert_envelope(response, 405, "method_not_allowed")
        assert response["Content-Type"] == "application/json"
    assert client.post("/admin/login/", {"username": "x"}).status_code == 403


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc", "/admin/login/"])
def test_pages_have_a_policy_and_keep_to_it(db: None, page: str) -> None:
    response = Client().get(page)
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    # Alpine.js, which the console's menus are made with, evaluates attributes.
    assert ("unsafe-eval" in policy) == page.startswith("/admin/")
    html = response.content.decode()
    assert "<style" not in html
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"\son\w+=|\sstyle=", html)


def test_a_charset_that_is_none_is_ignored() -> None:
    started: list[str] = []
    environ = {
        **RequestFactory()._base_environ(),
        "PATH_INFO": "/nowhere",
        "QUERY_STRING": "a=b",
        "CONTENT_TYPE": "text/plain; charset=hex",
    }
    list(wsgi.application(environ, lambda status, headers: started.append(status)))
    assert started == ["404 Not Found"]


class TestCors:
    ORIGIN = "http://localhost:3000"

    def preflight(self, origin: str, headers: str) -> Any:
        return Client().options(
            "/api/v1/voice/synthesize",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": headers,
            },
        )

    @pytest.mark.parametrize(
        "header",
        [
            "x-api-key",
            "authorization",
            "content-type",
            "idempotency-key",
            "prefer",
            "range",
            "last-event-id",
            # What the clients of OpenAI and ElevenLabs send in a browser.
            "openai-organization",
            "openai-project",
            "openai-beta",
            "x-stainless-os",
            "x-stainless-lang",
            "x-stainless-retry-count",
            "x-stainless-timeout",
            "xi-api-key",
            "x-fern-language",
            "x-fern-runtime-version",
        ],
    )
    def test_a_preflight_of_a_known_origin_is_answered(self, header: str) -> None:
        response = self.preflight(self.ORIGIN, header)
        assert response.status_code == 200
        assert response["Access-Control-Allow-Origin"] == self.ORIGIN
        assert header in response["Access-Control-Allow-Headers"].lower()
        assert "Access-Control-Allow-Credentials" not in response

    @pytest.mark.parametrize(
        "origin", ["http://localhost:3001", "https://localhost:3000", "null", "http://localhost:3000.evil.example"]
    )
    def test_other_origins_get_nothing(self, origin: str) -> None:
        assert "Access-Control-Allow-Origin" not in self.preflight(origin, "x-api-key")

    def test_errors_and_our_headers_can_be_read(self, api: APIClient, engine: FakeEngine) -> None:
        for response in (
            APIClient().post("/api/v1/voice/synthesize", headers={"Origin": self.ORIGIN}),
            api.post("/api/v1/voice/synthesize", headers={"Origin": self.ORIGIN}),
            api.get("/api/v1/nowhere", headers={"Origin": self.ORIGIN}),
        ):
            assert response["Access-Control-Allow-Origin"] == self.ORIGIN
            exposed = response["Access-Control-Expose-Headers"]
            for header in ("X-Request-ID", "X-Audio-Duration", "X-Engine", "Location", "Retry-After", "Content-Range",
                           "Request-ID", "X-Should-Retry"):  # fmt: skip
                assert header in exposed


class TestHealth:
    @pytest.mark.parametrize("host", ["10.0.0.7:8000", "web:8000", "voice_web_1", "evil.example", "a b", ""])
    def test_it_and_nothing_else_answers_whatever_the_host_header_says(
        self, db: None, engine: FakeEngine, host: str
    ) -> None:
        headers = {"Host": host, "Origin": "http://localhost:3000", "Referer": "http://elsewhere.example/"}
        for route in ("/health", "/health/"):
            assert Client().get(route, headers=headers).status_code == 200
        for route in ("/", "/docs", "/openapi.json", "/healthy", "/health/x", "/api/v1/voice/health", "/admin/login/"):
            assert Client().get(route, headers=headers).status_code == 400, route

    def test_it_answers_without_tls_where_everything_else_is_sent_there(
        self, db: None, engine: FakeEngine, settings: Any
    ) -> None:
        settings.SECURE_SSL_REDIRECT = True
        for route in ("/health", "/health/"):
            assert Client().get(route, headers={"Host": "10.0.0.7:8000"}).status_code == 200
        moved = Client().get("/docs")
        assert (moved.status_code, moved["Location"]) == (301, "https://testserver/docs")

    def test_it_is_healthy_with_the_builtin_engine(self, db: None, engine: FakeEngine) -> None:
        response = Client().get("/health")
        body = response.json()
        assert (response.status_code, body["status"], body["sovits_available"]) == (200, "healthy", False)
        assert body["engine"]["name"] == "builtin"
        assert set(body["checks"]) == {"database", "broker", "storage", "workers"}
        assert body["checks"]["database"] == "ok"
        assert Client().get("/health").json()["uptime_seconds"] >= body["uptime_seconds"] >= 0

    def test_a_dead_engine_degrades_it(self, db: None, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "health", lambda: EngineHealth("gptsovits", available=False, detail="refused"))
        response = Client().get("/health")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert response.json()["sovits_available"] is False

    def test_without_its_database_it_is_503(self, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health, "check_database", lambda: "unreachable")
        response = Client().get("/health")
        assert (response.status_code, response.json()["status"]) == (503, "unhealthy")

    def test_an_unreachable_redis_degrades_it(self, db: None, engine: FakeEngine, settings: Any) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
        body = Client().get("/health").json()
        assert (body["status"], body["checks"]["broker"]) == ("degraded", "unreachable")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    out = io.StringIO()
    call_command("spectacular", "--format", "openapi-json", "--validate", "--fail-on-warn", stdout=out)
    return json.loads(out.getvalue())


class TestDocumentation:
    def test_it_is_served_as_it_is_generated(self, schema: dict[str, Any]) -> None:
        assert Client().get("/openapi.json").json()["paths"].keys() == schema["paths"].keys()

    def test_files_go_in_and_audio_comes_out(self, schema: dict[str, Any]) -> None:
        operation = schema["paths"]["/api/v1/voice/synthesize"]["post"]
        name = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["$ref"].rsplit("/", 1)[1]
        file = schema["components"]["schemas"][name]["properties"]["reference_audio"]
        assert file["type"] == "string"
        assert file.get("format") == "binary" or file.get("contentMediaType")
        assert {"audio/wav", "audio/mpeg", "audio/flac"} <= set(operation["responses"]["200"]["content"])
        assert "X-Audio-Duration" in operation["responses"]["200"]["headers"]

    def test_every_operation_names_its_errors_and_its_key(self, schema: dict[str, Any]) -> None:
        for path_, operations in schema["paths"].items():
            for method, operation in operations.items():
                if "/api/" not in path_:
                    continue
                assert {"401", "403", "500"} <= set(operation["responses"]), (path_, method)
                assert operation["security"] == [{"ApiKey": []}, {"Bearer": []}]
                assert operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")

    def test_every_route_of_the_api_is_in_it(self, schema: dict[str, Any]) -> None:
        routes = {str(route.pattern) for route in voiceproject.urls.urlpatterns}
        documented = {name.lstrip("/") for name in schema["paths"]}
        ours = {
            re.sub(r"<\w+:(\w+)>", r"{\1}", route.replace("<uuid:pk>", "{id}"))
            for route in routes
            if route.startswith("api/")
        }
        assert ours | {"health", "metrics"} == documented

    @pytest.mark.parametrize("page", ["/docs", "/redoc", "/"])
    def test_its_pages_load_nothing_from_elsewhere(self, db: None, page: str) -> None:
        response = Client().get(page)
        assert response.status_code == 200
        html = response.content.decode()
        for outside in ("cdn.", "unpkg", "googleapis", "jsdelivr"):
            assert outside not in html


class TestLogs:
    def record(self, message: str, **extra: Any) -> logging.LogRecord:
        record = logging.LogRecord("voiceproject.test", logging.INFO, __file__, 1, message, (), None)
        record.__dict__.update(extra)
        return record

    def test_json_lines_carry_the_bound_ids(self) -> None:
        with bind(request_id="r1", job=None):
            line = json.loads(JsonFormatter().format(self.record("it happened", duration_ms=5)))
        assert (line["request_id"], line["message"], line["duration_ms"]) == ("r1", "it happened", 5)
        assert "job" not in line

    def test_a_line_break_from_outside_cannot_forge_a_line(self) -> None:
        with bind(request_id="r1"):
            line = TextFormatter().format(self.record("GET /a\nERROR forged", path="x\r\ny"))
        assert "\n" not in line
        assert "\r" not in line

    @pytest.mark.django_db(transaction=True)
    def test_neither_keys_nor_texts_are_logged(
        self, tenant: Tenant, engine: FakeEngine, reference_wav: bytes, request: pytest.FixtureRequest
    ) -> None:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter())
        logging.getLogger().addHandler(handler)
        request.addfinalizer(lambda: logging.getLogger().removeHandler(handler))
        engine.failure = RuntimeError("broken")
        tenant.client.post(
            "/api/v1/voice/synthesize", {"text": "a confidential sentence", "reference_audio": upload(reference_wav)}
        )
        logged = stream.getvalue()
        assert "broken" in logged
        assert tenant.secret not in logged
        assert "confidential" not in logged
