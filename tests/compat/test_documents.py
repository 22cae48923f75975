"""The OpenAPI documents of the other services' routes: each route is in one, and is answered as that says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings

from tests.fakes.engine import FakeEngine
from tests.support.openapi import CHECKS, EXAMPLES, WITH_A_SCHEMA, schemathesis
from tests.support.owned import synthesis, voice
from tests.support.tenants import Tenant
from voiceproject.urls import urlpatterns
from voiceproject.web.pages import SchemaView
from voices.compat.schema import TREES
from voices.keys.models import SCOPES

NAMES = [tree.name for tree in TREES]
DOCUMENTS = {tree.name: json.loads(SchemaView.document(tree, f"/{tree.name}").plain) for tree in TREES}
OPERATIONS = {
    f"{name} {operation.method.upper()} {operation.path}": operation
    for name, document in DOCUMENTS.items()
    for operation in (result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations())
}


@pytest.mark.parametrize("tree", TREES, ids=NAMES)
def test_it_is_made_without_a_warning_and_is_valid(tree: Any) -> None:
    GENERATOR_STATS.reset()
    SchemaView.document.__wrapped__(tree, f"/{tree.name}")
    assert not GENERATOR_STATS
    validate_schema(DOCUMENTS[tree.name])


@pytest.mark.parametrize("name", NAMES)
def test_every_route_is_in_it(name: str) -> None:
    [server] = [server["url"] for server in DOCUMENTS[name]["servers"]]
    described = {f"{server}{path}".rstrip("/"): set(item) for path, item in DOCUMENTS[name]["paths"].items()}
    served = {}
    for route in (pattern for pattern in urlpatterns if str(pattern.pattern).split("/")[0] == name):
        pattern = str(route.pattern)
        if (
            "<path:" in pattern
            or "<PathKey:" in pattern
            or pattern.endswith(("/openapi.json", "/docs", "/control", "stream-input"))
        ):
            continue  # Not served, the same again below a key, the document and its page, refused to all, WebSockets.
        view: Any = route.callback
        methods = {method for method in ("get", "post", "put", "patch", "delete") if hasattr(view.cls, method)}
        served["/" + re.sub(r"<\w+:(\w+)>", r"{\1}", pattern)] = methods
    assert described == served


@pytest.mark.parametrize("name", NAMES)
def test_it_is_sent_again_only_where_it_has_changed(name: str) -> None:
    first = Client().get(f"/{name}/openapi.json")
    assert first.json() == DOCUMENTS[name]
    etags = {Client().get(f"/{other}openapi.json")["ETag"] for other in ("", *(f"{name}/" for name in NAMES))}
    assert len(etags) == 4
    assert Client().get(f"/{name}/openapi.json", headers={"If-None-Match": first["ETag"]}).status_code == 304


def test_on_a_host_of_its_own_it_names_the_root(settings: Any) -> None:
    settings.COMPAT_HOSTS = {"tts.example.com": "elevenlabs", "ai.example.com": "openai"}
    settings.ALLOWED_HOSTS = ["*"]
    for host, server, path in (("tts.example.com", "/", "/v1/models"), ("ai.example.com", "/v1", "/models")):
        document = Client().get("/openapi.json", headers={"Host": host}).json()
        assert document["servers"][0]["url"] == server and path in document["paths"]


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_answer_is_as_the_document_has_it(
    name: str, engine: FakeEngine, live_server: Any, transactional_db: None
) -> None:
    operation = OPERATIONS[name]
    tenant = Tenant("alice", scopes=list(SCOPES))
    tree = name.split()[0]
    known = {"voice_id": voice, "item_id": synthesis}
    turn = iter(range(10**6))

    @hypothesis_settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def look(case: Any) -> None:
        for parameter, make in known.items():
            if parameter in (case.path_parameters or {}) and next(turn) % 4:
                case.path_parameters[parameter] = str(make(tenant.user)["pk"])
        base = f"{live_server.url}{DOCUMENTS[tree]['servers'][0]['url']}"
        response = case.call(base_url=base, headers={"X-API-Key": tenant.secret}, timeout=60)
        assert response.status_code < 500 or response.status_code == 503, response.text
        stream = response.headers.get("content-type", [""])[0].startswith(("text/event-stream", "application/json"))
        lines = "stream/with-timestamps" in name  # A line of JSON each, which a schema has no words for.
        case.validate_response(response, checks=CHECKS if stream and lines else [*CHECKS, WITH_A_SCHEMA])

    look()
