"""No malformed parameter is a 500, anywhere: every route, every parameter of its path, query and body, nasty values.

Routes come from the resolver, and the names of their parameters from the OpenAPI document, from the forms of the pages,
and from what the console's lists read, so that a new route is tried by itself. An ordinary run tries a sample, another
one with each `BAD_INPUT_SEED`. `BAD_INPUT=40` tries ten times as much, and `BAD_INPUT=all` everything.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import uuid
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.signals import request_finished
from django.db import close_old_connections
from django.test import Client
from model_bakery import baker
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.owned import ROUTES, cover, delivery, key, path_of, recorded_consent, synthesis, voice
from tests.support.tenants import Tenant
from voiceproject.web.schema import DocumentGenerator
from voices.keys.models import ApiKey

pytestmark = pytest.mark.django_db

TRIES = os.environ.get("BAD_INPUT", "4")  # of each route and way
SEED = os.environ.get("BAD_INPUT_SEED", "")

HALF = "\ud800"  # half of a pair of surrogates
TEXTS = (
    "", " ", "x", "not-a-uuid", "0", "-1", "1.5", "1e400", "NaN", "-Infinity", "0x1f", "\u0663", "\u00b2", "9" * 30,
    "9" * 5000,
    str(2**31), str(2**63), str(-(2**63) - 1), "\x00", "a\x00b", HALF, f"a{HALF}b", "\udfff", "\ufffe", "2026-13-45",
    "0000-00-00", "0001-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31", "25:61",
    str(uuid.UUID(int=0)), "{" + str(uuid.UUID(int=0)) + "}", "[]", "{}", "[1]", '{"a": 1}', "null", "true",
    "../../etc/passwd", "a/b", "x" * 10_000, "a\r\nX: y", "<script>", "%s%n{0}", "=", "&", "%", "_", "__", "a__b", "-",
    "cD0x", "https://[::1", "https://\udcff/", "\u202e", "\U0001f600" * 300, "vck_", "vck_\x00",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1e308, 10**30, 2**63, -(2**63) - 1, float("nan"), float("inf"), [], {}, [[]], [None], [{}],
    {"a": 1}, [1] * 500, ["x" * 1000], "\x00", HALF, [HALF], {HALF: HALF}, "x" * 10_000, [True], [["keys"]], {"": None},
)  # fmt: skip
BODIES = (
    b"", b"{", b"[", b"null", b"[]", b'"x"', b"1", b"\xff\xfe", b"{" * 5, b"[" * 200_000, b'{"a":' * 50_000,
    b"1" * 10_000, b'{"name": NaN}', b'{"name": "\\ud800"}', b"\xef\xbb\xbf{}", b'{"a": 1, "a": 2}', b"\x00" * 100,
    b"a=%ED%A0%80&%00=%00&name=%ff", b"&&&===;;;", b"a=1&" * 5000,
)  # fmt: skip
TYPES = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b",
         "multipart/form-data", "multipart/form-data; boundary=" + "b" * 300, "text/plain", "",
         "application/json; charset=utf-7", "application/json; charset=nonsense")  # fmt: skip

# Names that pages read without showing a field of that name.
COMMON = (
    "q", "p", "o", "all", "e", "next", "page", "month", "term", "app_label", "model_name", "field_name", "language",
    "_to_field", "_popup", "_changelist_filters", "_facets", "action", "_selected_action", "select_across", "index",
    "confirmed", "from_page", "priority", "stage", "target_type", "target_id", "since", "error", "running_on",
    "area", "status__exact", "revoked_at__isempty", "is_active__exact", "enabled__exact", "unknown_field",
    "csrfmiddlewaretoken", "_save", "_continue", "format", "lang", "user_id", "object_id",
)  # fmt: skip
# What the API's routes name, by the part of a route before its parameter.
OWNED = {
    "syntheses/<": synthesis, "history/<": synthesis, "jobs/<": cover, "keys/<": key, "voices/<": voice,
    "deliveries/<": delivery, "consents/<": recorded_consent,
}  # fmt: skip
FILES = ("reference_audio", "song", "reference_voice", "sample", "audio", "file", "audio_sample", "files")


def operations() -> dict[str, dict[str, Any]]:
    document = DocumentGenerator().get_schema(request=None, public=True)
    found: dict[str, dict[str, Any]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            query = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
            headers = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"]
            body: dict[str, None] = {}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = content["schema"]
                if "$ref" in schema:
                    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
                body |= dict.fromkeys(schema.get("properties", ()))
            found.setdefault(re.sub(r"\{\w+\}", "{}", path), {})[method.upper()] = (query, headers, list(body))
    return found


class Fields(HTMLParser):
    """The names and values of a page's form fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("input", "select", "textarea", "button") and given.get("name"):
            self.found.setdefault(str(given["name"]), given.get("value") or "")


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def encoded(pairs: dict[str, Any]) -> bytes:
    """Of a query or a form, with whatever bytes."""
    every = [(name, one) for name, value in pairs.items() for one in (value if isinstance(value, list) else [value])]
    return "&".join(f"{quote_from_bytes(raw(n), '')}={quote_from_bytes(raw(v), '')}" for n, v in every).encode()


def multipart(pairs: dict[str, Any]) -> bytes:
    parts = b""
    for name, value in pairs.items():
        for one in value if isinstance(value, list) else [value]:
            content = one if isinstance(one, bytes) else raw(one)
            file = b'; filename="f.wav"\r\nContent-Type: audio/wav' if isinstance(one, bytes) else b""
            parts += b'--b\r\nContent-Disposition: form-data; name="' + raw(name) + b'"' + file + b"\r\n\r\n" + content
            parts += b"\r\n"
    return parts + b"--b--\r\n"


def sample(tries: Iterator[Any], *what: Any) -> list[Any]:
    every = list(tries)
    if TRIES == "all" or len(every) <= int(TRIES):
        return every
    return random.Random(f"{SEED} {what}").sample(every, int(TRIES))


def nasty(names: Any) -> Iterator[dict[str, Any]]:
    for name, text in itertools.product(names, TEXTS):
        yield {name: text}
    for name in names:
        yield {name: ["x", "y"]}
        yield {f"{name}[]": "x", f"{name}.a": "y", f"{name}__in": "z"}
    for text in TEXTS:
        yield {text: "x"}


def check(response: Any, *what: Any) -> None:
    if response.streaming:
        for _ in itertools.islice(response.streaming_content, 5):
            pass
        # As the client of tests does where it closes: the connection is the test's own.
        request_finished.disconnect(close_old_connections)
        response.close()
        request_finished.connect(close_old_connections)
    well = response.status_code < 500 or (response.status_code == 503 and what[1] == "/health")
    assert well, (response.status_code, *[str(each)[:300] for each in what])


class Site:
    """Everything there is, owned by one tenant who is a superuser too."""

    def __init__(self, reference: bytes) -> None:
        tenant = Tenant("alice")
        User.objects.filter(pk=tenant.user.pk).update(is_staff=True, is_superuser=True)
        self.user, self.secret = User.objects.get(pk=tenant.user.pk), tenant.secret
        self.key = ApiKey.objects.issue(self.user, "another")[0]
        self.api = APIClient(headers={"X-API-Key": self.secret}, raise_request_exception=False)
        self.reference = reference

    def page(self) -> Client:
        client = Client(raise_request_exception=False)
        client.force_login(self.user)
        return client

    def path(self, route: str) -> str:
        """A path of the route that names something which is there, as far as one is known."""
        for part, make in OWNED.items():
            if part in route and not is_page(route):
                values = make(self.user)
                return path_of(route, values | dict.fromkeys(("name", "voice_id", "item_id"), values["pk"]))
        if match := re.match(r"admin/(\w+)/(\w+)/<", route):
            model = apps.get_model(match[1], match[2])
            row = model._default_manager.first() or self.made(model)
            return path_of(route, {"object_id": row.pk, "pk": row.pk, "id": row.pk})
        if "account/keys/" in route:
            return path_of(route, {"pk": self.key.public_id})
        return path_of(route)

    def made(self, model: Any) -> Any:
        fields = {each.name: self.user for each in model._meta.concrete_fields if each.related_model is User}
        make: Any = baker.make
        return make(model, **fields)


@pytest.fixture
def site(db: None, engine: FakeEngine, reference_wav: bytes) -> Site:
    return Site(reference_wav)


def is_page(route: str) -> bool:
    return route.startswith(("admin/", "account"))


PARAMETER = re.compile(r"<(?:\w+:)?\w+>|\(\?P<\w+>[^)]*\)\)?")
IN_PATH = [route for route in ROUTES if PARAMETER.search(route)]


def test_no_value_in_a_path_is_a_500(site: Site) -> None:
    clients = {True: site.page(), False: site.api}
    for route in IN_PATH:
        cases = itertools.product(("GET", "POST", "PATCH", "DELETE"), TEXTS)
        for method, text in sample(cases, route):
            part = quote(raw(text).replace(b"/", b"%2F"), safe="%").encode().decode()
            path = "/" + re.sub(r"[\^$]", "", PARAMETER.sub(lambda _, part=part: part, route))
            check(clients[is_page(route)].generic(method, path), method, route, text)


@pytest.mark.usefixtures("train_habits")
@pytest.mark.parametrize("route", [route for route in ROUTES if not is_page(route)])
def test_no_parameter_of_the_api_is_a_500(route: str, site: Site) -> None:
    path, client = site.path(route), site.api
    described = operations_of(route)
    for method in ("GET", "POST", "PATCH", "DELETE"):
        query, headers, body = described.get(method, ([], [], []))
        if not described and method in ("PATCH", "DELETE"):
            continue
        if described and method not in described:
            continue
        base = {"text": "Hello.", "input": "Hello.", "name": "x"} if method == "POST" else {}
        for pairs in sample(nasty([*query, *COMMON[:12]]), route, method, "query"):
            check(client.generic(method, path, QUERY_STRING=encoded(pairs).decode()), method, path, pairs)
        for name, text in sample(itertools.product([*headers, "Accept", "Range", "If-Range", "If-None-Match", "Prefer"],
                                                   TEXTS), route, method, "headers"):  # fmt: skip
            if not re.search(r"[\r\n]", text):
                sent = {name: raw(text).decode("latin-1")}
                check(client.generic(method, path, headers=sent), method, path, name, text)
        if method == "GET":
            continue
        for name, value in sample(itertools.product(body or ["x"], VALUES), route, method, "json"):
            content = json.dumps({**{n: v for n, v in base.items() if n in body}, name: value})
            check(client.generic(method, path, content, "application/json"), method, path, name, value)
        files = {name: site.reference for name in body if name in FILES}
        whole = {**{n: v for n, v in base.items() if n in body}, **files}
        for pairs in sample(nasty(body), route, method, "form"):
            check(
                client.generic(method, path, multipart(whole | pairs), "multipart/form-data; boundary=b"),
                method, path, pairs,
            )  # fmt: skip
            if not files:
                form = "application/x-www-form-urlencoded"
                check(client.generic(method, path, encoded(whole | pairs), form), method, path, pairs)
        for content, kind in sample(itertools.product(BODIES, TYPES), route, method, "body"):
            check(client.generic(method, path, content, kind), method, path, content, kind)


def operations_of(route: str) -> dict[str, Any]:
    return OPERATIONS.get(re.sub(r"<(?:\w+:)?\w+>", "{}", f"/{route}"), {})


OPERATIONS = operations()


@pytest.mark.parametrize("route", [route for route in ROUTES if is_page(route)])
def test_no_parameter_of_a_page_is_a_500(route: str, site: Site) -> None:
    for model in admin.site._registry:
        if not model._default_manager.exists():
            site.made(model)
    path, client = site.path(route), site.page()
    first = client.get(path)
    check(first, "GET", path)
    html = "" if first.streaming else first.content.decode(errors="replace")
    shown = Fields(html).found if "html" in first.get("Content-Type", "") else {}
    for pairs in sample(nasty([*COMMON, *shown]), route, "query"):
        check(client.get(path, QUERY_STRING=encoded(pairs).decode()), "GET", path, pairs)
    form = "application/x-www-form-urlencoded"
    actions = re.findall(r'<option value="(\w+)"', html) if 'name="action"' in html else []
    for pairs in sample(nasty([*shown, *COMMON]), route, "form"):
        # The page may have ended the session, or what it shows.
        client.force_login(User.objects.get(pk=site.user.pk))
        check(client.generic("POST", path, encoded(shown | pairs), form), "POST", path, pairs)
    for action, text in sample(itertools.product(actions, TEXTS), route, "action"):
        for more in ({}, {"confirmed": "1"}):
            pairs = {"action": action, "_selected_action": text, **more}
            check(client.generic("POST", path, encoded(pairs), form), "POST", path, pairs)
    for content, kind in sample(itertools.product(BODIES, TYPES), route, "body"):
        check(client.generic("POST", path, content, kind), "POST", path, content, kind)
