"""The OpenAPI document: a generator and a reader find all that they need, and every example is true to its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, song
from voiceproject.errors import STATUS_OF_CODE


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return Client().get("/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def contents(operation: dict[str, Any], success: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if success:
        yield from (
            ("request", kind, part) for kind, part in operation.get("requestBody", {}).get("content", {}).items()
        )
    for status, body in operation["responses"].items():
        if status.startswith("2") == success:
            yield from ((status, kind, part) for kind, part in body.get("content", {}).items())


def problems(document: dict[str, Any], schema: dict[str, Any], example: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    validator = jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())
    return [error.message for error in validator.iter_errors(example)]


def test_it_is_openapi_3_1_with_nothing_of_3_0(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert '"nullable"' not in json.dumps(document)


def test_a_form_has_examples_of_the_fields_that_it_must_have(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["SynthesizeRequest"]
    assert schema["required"] == ["text"]
    assert schema["properties"]["text"]["examples"] == ["Hello, this is a test"]
    assert "examples" not in schema["properties"]["reference_text"]


@pytest.mark.django_db(transaction=True)
def test_the_examples_of_what_is_sent_are_taken_as_they_stand(
    document: dict[str, Any], api: APIClient, engine: FakeEngine, reference_wav: bytes
) -> None:
    files = {"reference_audio": reference_wav, "reference_voice": reference_wav, "sample": reference_wav,
             "song": wav_bytes(song(), RATE)}  # fmt: skip
    for path, expected in (
        ("voice/synthesize", 200),
        ("cover/jobs", 202),
        ("voice/voices", 201),
        ("voice/quality", 200),
    ):
        body = document["paths"][f"/api/v1/{path}"]["post"]["requestBody"]["content"]["multipart/form-data"]["example"]
        form = {name: upload(files[name]) if name in files else value for name, value in body.items()}
        assert "(the file)" not in form.values()
        response = api.post(f"/api/v1/{path}", form)
        assert response.status_code == expected, (path, body, response.content)
    body = document["paths"]["/api/v1/keys"]["post"]["requestBody"]["content"]["application/json"]["example"]
    body["expires_at"] = (timezone.now() + timedelta(days=1)).isoformat()  # the example's own has passed by now
    assert api.post("/api/v1/keys", body, format="json").status_code == 201


def test_every_body_that_is_sent_or_answered_has_an_example_that_is_valid(document: dict[str, Any]) -> None:
    count = 0
    for where, operation in operations(document):
        for status, kind, content in contents(operation, success=True):
            if kind not in ("application/json", "multipart/form-data"):
                continue
            count += 1
            assert "example" in content or "examples" in content, f"{where} {status}"
            for example in [content.get("example"), *(e["value"] for e in content.get("examples", {}).values())]:
                if example is not None:
                    assert problems(document, content["schema"], example) == [], f"{where} {status}: {example}"
    assert count > 20


def test_every_error_of_every_operation_tells_its_codes_by_example(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        seen = set()
        for status, kind, content in contents(operation, success=False):
            if not status.startswith(("4", "5")):
                continue
            if where == "GET /health" and status == "503":
                continue  # Its own answer, with what is wrong.
            seen.add(status)
            assert kind == "application/json" and content["examples"], f"{where} {status}"
            for code, example in content["examples"].items():
                assert problems(document, content["schema"], example["value"]) == []
                assert (example["value"]["error"], STATUS_OF_CODE[code]) == (code, int(status))
        assert {"405", "500"} <= seen, where
        if any("ApiKey" in one for one in operation["security"]):
            assert {"401", "403", "429"} <= seen, where
        if "{" in where:
            assert "404" in seen, where
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= seen, where


def test_files_are_binary_and_the_rest_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, fields in (
        ("CreateCoverRequest", ("song", "reference_voice")),
        ("SynthesizeRequest", ("reference_audio",)),
    ):
        for field in fields:
            assert schemas[name]["properties"][field]["format"] == "binary"
    for where, operation in operations(document):
        assert operation["summary"] and operation["operationId"] and operation["tags"], where
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)


def test_the_example_of_a_new_job_is_that_of_one_that_waits(document: dict[str, Any]) -> None:
    paths = document["paths"]
    new = paths["/api/v1/cover/jobs"]["post"]["responses"]["202"]["content"]["application/json"]["example"]
    ended = paths["/api/v1/cover/jobs/{id}"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    assert (new["status"], new["queue_position"], new["links"]["result"]) == ("queued", 1, None)
    assert (ended["status"], ended["stage"], ended["progress"], ended["error"]) == ("succeeded", "finalize", 100, None)
    assert ended["links"]["result"].startswith("https://")
