"""What is sent compressed, what never is, and how long it is kept: static files, texts, the OpenAPI document."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.staticfiles.storage import staticfiles_storage
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client, RequestFactory

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import Tenant
from voiceproject.web import pages, static_files
from voiceproject.web.compression import TextCompressionMiddleware
from voiceproject.web.static_files import StaticFilesMiddleware
from voices.library.models import Voice

TAKES_GZIP = {"Accept-Encoding": "gzip, deflate, br"}


def content(response: Any) -> bytes:
    body = bytes(response.content)
    return gzip.decompress(body) if response.get("Content-Encoding") == "gzip" else body


class TestStaticFiles:
    def test_a_page_names_files_by_their_content_and_they_are_kept_for_a_year(self) -> None:
        page = Client().get("/").content.decode()
        links = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
        assert len(links) > 3
        for link in links:
            assert re.search(r"\.[0-9a-f]{12}\.\w+$", link), link
            response = Client().get(link)
            assert response.status_code == 200, link
            assert response["Cache-Control"] == "max-age=31536000, public, immutable"

    def test_the_plain_name_is_asked_for_again_after_a_minute(self) -> None:
        first = Client().get("/static/studio/studio.css")
        assert (first.status_code, first["Cache-Control"]) == (200, "max-age=60, public")
        again = Client().get("/static/studio/studio.css", headers={"If-None-Match": first["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert Client().get("/static/studio/studio.000000000000.css").status_code == 404

    @pytest.mark.parametrize("name", ["studio/studio.js", "drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css"])
    def test_texts_are_compressed_for_who_takes_that(self, name: str) -> None:
        plain, packed = Client().get(f"/static/{name}"), Client().get(f"/static/{name}", headers=TAKES_GZIP)
        assert "Content-Encoding" not in plain and packed["Content-Encoding"] == "gzip"
        assert plain["Vary"] == packed["Vary"] and "Accept-Encoding" in plain["Vary"]
        assert content(packed) == content(plain) and len(packed.content) < len(plain.content) / 2
        assert int(packed["Content-Length"]) == len(packed.content)

    def test_what_is_compressed_already_is_left_as_it_is(self) -> None:
        name = "unfold/fonts/inter/Inter-Regular.woff2"
        response = Client().get(staticfiles_storage.url(name), headers=TAKES_GZIP)
        assert response.status_code == 200 and "Content-Encoding" not in response
        part = Client().get(staticfiles_storage.url(name), headers={**TAKES_GZIP, "Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, response.content[4:8])

    def test_a_file_is_compressed_once_for_all_processes(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(settings, "CACHE_DIR", tmp_path)
        requests = [RequestFactory().get(f"/static/{name}") for name in ("studio/studio.js", "studio/studio.css")]

        def made_by_a_process() -> dict[Path, int]:
            serve = StaticFilesMiddleware(lambda request: HttpResponse(status=404))
            assert [serve(request).status_code for request in requests] == [200, 200]
            return {path: path.stat().st_mtime_ns for path in (tmp_path / "static").iterdir()}

        made = made_by_a_process()
        assert len(made) == 2 and {path.suffix for path in made} == {".gz"}
        assert made == made_by_a_process()

    def test_while_somebody_works_on_them_names_are_plain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settings, "DEBUG", True)
        assert staticfiles_storage.url("studio/studio.js") == "/static/studio/studio.js"

    @pytest.mark.parametrize("name", ["studio/studio.js", "studio/en.json", "unfold/fonts/material-symbols/LICENSE"])
    def test_each_file_has_both_names(self, name: str) -> None:
        hashed = staticfiles_storage.url(name)
        assert re.search(r"\.[0-9a-f]{12}(\.\w+)?$", hashed)
        plain = Client().get(f"/static/{name}")
        assert plain.status_code == 200 and Client().get(hashed).content == plain.content

    @pytest.mark.parametrize(
        "path", ["", "studio", "../manage.py", "/studio/studio.js", "studio/studio.000000000000.js", "studio.js.js"]
    )
    def test_what_is_no_file_is_not_found(self, path: str) -> None:
        assert Client().get(f"/static/{path}").status_code == 404

    @pytest.mark.parametrize("name", ["nothing/like-it.js", "studio", "studio/", ""])
    def test_a_name_of_no_file_gets_no_hash(self, name: str) -> None:
        assert staticfiles_storage.url(name) == f"/static/{name}"


class TestTexts:
    @pytest.mark.django_db(transaction=True)
    def test_a_long_answer_of_the_api_is_compressed_and_a_short_one_is_not(self, tenant: Tenant) -> None:
        for number in range(20):
            Voice.objects.create(tenant=tenant.user, name=f"A voice of some name {number}")
        plain = tenant.client.get("/api/v1/voice/voices")
        packed = tenant.client.get("/api/v1/voice/voices", headers=TAKES_GZIP)
        assert packed["Content-Encoding"] == "gzip" and len(packed.content) < len(plain.content) / 3
        assert json.loads(content(packed)) == plain.json()
        assert "Accept-Encoding" in packed["Vary"] and "Accept-Encoding" in plain["Vary"]
        assert "Content-Encoding" not in tenant.client.get("/api/v1/me", headers=TAKES_GZIP)

    def test_audio_never_is(self, tenant: Tenant, engine: FakeEngine, reference_wav: bytes) -> None:
        form = {"text": "Hello, this is a test", "reference_audio": upload(reference_wav)}
        spoken = tenant.client.post("/api/v1/voice/synthesize", form, headers=TAKES_GZIP)
        assert spoken.status_code == 200 and "Content-Encoding" not in spoken

    @pytest.mark.parametrize(
        ("path", "kind", "compressed"),
        [
            ("/", "text/html; charset=utf-8", True),
            ("/api/v1/me", "application/json", True),
            ("/metrics", "text/plain; version=0.0.4", True),
            ("/admin/", "text/html; charset=utf-8", False),
            ("/account", "text/html; charset=utf-8", False),
            ("/account/export", "application/json", False),
            ("/api/v1/x", "audio/wav", False),
            ("/api/v1/x", "audio/mpeg", False),
            ("/api/v1/x", "application/zip", False),
            ("/api/v1/x", "text/event-stream", False),
        ],
    )
    def test_only_texts_that_no_cookie_opens_are(self, path: str, kind: str, compressed: bool) -> None:
        request = RequestFactory().get(path, headers=TAKES_GZIP)
        answers = TextCompressionMiddleware(lambda request: HttpResponse(b"word " * 1000, content_type=kind))
        assert (answers(request).get("Content-Encoding") == "gzip") is compressed
        streams = TextCompressionMiddleware(lambda request: StreamingHttpResponse([b"word "] * 1000, content_type=kind))
        assert "Content-Encoding" not in streams(request)

    @pytest.mark.django_db
    def test_a_page_behind_a_cookie_is_left_as_it_is(self) -> None:
        client = Client()
        client.force_login(User.objects.create_superuser("boss"))
        for path in ("/admin/", "/account"):
            response = client.get(path, headers=TAKES_GZIP)
            assert (response.status_code, "Content-Encoding" in response) == (200, False), path


class TestDocument:
    @pytest.fixture(autouse=True)
    def cold(self) -> None:
        pages.SchemaView.document.cache_clear()

    def test_seventeen_who_ask_a_cold_process_at_once_get_it_and_it_is_made_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[object] = []

        class Counting(pages.DocumentGenerator):
            def get_schema(self, *args: Any, **kwargs: Any) -> Any:
                made.append(self)
                return super().get_schema(*args, **kwargs)

        monkeypatch.setattr(pages, "DocumentGenerator", Counting)
        with ThreadPoolExecutor(17) as pool:
            answers = list(pool.map(lambda _: Client().get("/openapi.json", headers=TAKES_GZIP), range(17)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert len(made) == 1

    def test_each_form_of_it_has_a_strong_etag_of_its_own(self) -> None:
        plain, packed = Client().get("/openapi.json"), Client().get("/openapi.json", headers=TAKES_GZIP)
        assert content(packed) == content(plain) and len(packed.content) < len(plain.content) / 10
        assert json.loads(content(plain))["openapi"] == "3.1.0"
        tags = [plain["ETag"], packed["ETag"]]
        assert len(set(tags)) == 2 and all(re.fullmatch(r'"[0-9a-f]{32}(-gzip)?"', tag) for tag in tags)
        assert all("Accept-Encoding" in answer["Vary"] for answer in (plain, packed))
        for answer, headers in ((plain, {}), (packed, TAKES_GZIP)):
            again = Client().get("/openapi.json", headers={**headers, "If-None-Match": answer["ETag"]})
            assert (again.status_code, again.content, again["ETag"]) == (304, b"", answer["ETag"])
            assert "Content-Encoding" not in again
        assert Client().get("/openapi.json", headers={"If-None-Match": packed["ETag"]}).status_code == 200

    @pytest.mark.parametrize(
        ("accepted", "packed"),
        [("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("gzip;q=0", False), ("gzip; q=0.0, br", False),
         ("identity", False), ("x-gzip-like", False), ("", False), ("gzip;q=0.01", True)],
    )  # fmt: skip
    def test_it_is_compressed_for_who_takes_that(self, accepted: str, packed: bool) -> None:
        response = Client().get("/openapi.json", headers={"Accept-Encoding": accepted})
        assert ("Content-Encoding" in response) is packed

    def test_every_process_makes_the_same(self) -> None:
        code = (
            "import django; django.setup(); from voiceproject.web.pages import SchemaView; "
            "print('digest', SchemaView.document().digest)"
        )
        said = {
            subprocess.run(
                [sys.executable, "-c", code], cwd=settings.BASE_DIR, check=True, capture_output=True, text=True,
                env={**os.environ, "DJANGO_SETTINGS_MODULE": "voiceproject.settings", "PYTHONHASHSEED": seed,
                     "DATA_DIR": str(settings.DATA_DIR)},
            ).stdout.split("digest ")[1]
            for seed in ("1", "2", "3")
        }  # fmt: skip
        assert len(said) == 1

    def test_it_depends_on_nothing_that_a_stranger_sends(self) -> None:
        usual = Client().get("/openapi.json")
        for query in ("?lang=zh-hans", "?lang=xx", "?version=7"):
            odd = Client().get(f"/openapi.json{query}", headers={"Accept-Language": "zh-CN"})
            assert (odd.status_code, odd["ETag"]) == (200, usual["ETag"])
        head = Client().head("/openapi.json")
        assert (head.status_code, head.content, head["ETag"]) == (200, b"", usual["ETag"])
        assert Client().post("/openapi.json").status_code == 405


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a")
    two.write_bytes(b"b")
    assert static_files.digest(str(one)) != static_files.digest(str(two))
    assert re.fullmatch(r"[0-9a-f]{12}", static_files.digest(str(one)))
