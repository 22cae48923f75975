"""Nobody where they don't belong: every URL of the resolver against everybody who may not use it.

A route that is declared nowhere below fails `test_every_route_is_declared`. One of the API gets a line in `API`, with
the scope it wants, its methods, and what a tenant owns there; pages for people get one in `PAGES`.
"""

from __future__ import annotations

import asyncio
import io
import json
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from model_bakery import baker
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.owned import (
    ROUTES,
    alias,
    cover,
    cover_link,
    delivery,
    key,
    lexicon,
    path_of,
    recorded_consent,
    synthesis,
    synthesis_link,
    trained_model,
    training,
    voice,
)
from tests.support.tenants import Tenant
from voiceproject.registry import registry
from voiceproject.server import websockets
from voices.keys.models import SCOPES, ApiKey
from voices.library.models import StandingConsent
from voices.speech.models import Synthesis

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ROOT = "api/v1/"


# --- What a tenant owns: each makes one thing and returns the values that go into its URL ---


def by_name(made: Callable[[User], dict[str, Any]]) -> Callable[[User], dict[str, Any]]:
    """For routes that take an id as text, under whatever name."""

    def make(owner: User) -> dict[str, Any]:
        values = made(owner)
        return {**values, **dict.fromkeys(("name", "voice_id", "item_id"), values["pk"])}

    return make


Scope = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Api:
    """scope: None for any valid key, several where one of them will do; methods: separated by spaces; owned: where the
    URL names something of a tenant; file: GET gives a file of it; root: of its path; header: where its key is sent."""

    scope: Scope
    methods: str
    owned: Callable[[User], dict[str, Any]] | None = None
    file: bool = False
    root: str = ROOT
    header: str = "X-API-Key"
    envelope: bool = True  # Compatible routes answer errors in the shape of the API that they speak.


API = {
    "voice/synthesize": Api("synthesize", "POST"),
    "history": Api("synthesize", "GET"),
    "voice/dialogue": Api("synthesize", "POST"),
    "voice/health": Api(None, "GET"),
    "voice/models": Api(None, "GET"),
    "voice/normalize": Api("synthesize", "POST"),
    "voice/join": Api("synthesize", "POST"),
    "voice/syntheses": Api("synthesize", "GET"),
    "voice/syntheses/<uuid:pk>": Api("synthesize", "GET PATCH DELETE", synthesis),
    "voice/syntheses/<uuid:pk>/audio": Api("synthesize", "GET", synthesis, file=True),
    "voice/syntheses/<uuid:pk>/cancel": Api("synthesize", "POST", synthesis),
    "voice/syntheses/<uuid:pk>/retry": Api("synthesize", "POST", synthesis),
    "voice/syntheses/<uuid:pk>/events": Api("synthesize", "GET", synthesis),
    "cover/jobs": Api("covers", "GET POST"),
    "cover/jobs/<uuid:pk>": Api("covers", "GET PATCH DELETE", cover),
    "cover/jobs/<uuid:pk>/shares": Api("covers", "GET POST", cover_link),
    "cover/jobs/<uuid:pk>/shares/<uuid:share_id>": Api("covers", "DELETE", cover_link),
    "voice/syntheses/<uuid:pk>/shares": Api("synthesize", "GET POST", synthesis_link),
    "voice/syntheses/<uuid:pk>/shares/<uuid:share_id>": Api("synthesize", "DELETE", synthesis_link),
    "cover/jobs/<uuid:pk>/result": Api("covers", "GET", cover, file=True),
    "cover/jobs/<uuid:pk>/stems/<str:stem>": Api("covers", "GET", cover, file=True),
    "cover/jobs/<uuid:pk>/cancel": Api("covers", "POST", cover),
    "cover/jobs/<uuid:pk>/retry": Api("covers", "POST", cover),
    "cover/jobs/<uuid:pk>/remix": Api("covers", "POST", cover),
    "cover/jobs/<uuid:pk>/events": Api("covers", "GET", cover),
    "voice/voices": Api("voices", "GET POST"),
    "voice/voices/<uuid:pk>": Api("voices", "GET PATCH DELETE", voice),
    "voice/voices/<uuid:pk>/sample": Api("voices", "GET", voice, file=True),
    "voice/voices/<uuid:pk>/samples": Api("voices", "POST", voice),
    "voice/voices/<uuid:pk>/samples/<uuid:sample_id>": Api("voices", "DELETE", voice),
    "voice/trainings": Api("voices", "GET POST"),
    "voice/trainings/<uuid:pk>": Api("voices", "GET DELETE", training),
    "voice/trainings/<uuid:pk>/cancel": Api("voices", "POST", training),
    "voice/trainings/<uuid:pk>/retry": Api("voices", "POST", training),
    "voice/trainings/<uuid:pk>/events": Api("voices", "GET", training),
    "voice/models/<str:model_id>": Api("voices", "GET DELETE", trained_model),
    "voice/models/<str:model_id>/weights/<str:kind>": Api("voices", "GET", trained_model),
    "voice/lexicons": Api("voices", "GET POST"),
    "voice/lexicons/<uuid:pk>": Api("voices", "GET PATCH DELETE", lexicon),
    "voice/lexicons/<uuid:pk>/pls": Api("voices", "GET", lexicon),
    "voice/aliases": Api("voices", "GET PUT"),
    "voice/aliases/<str:alias>": Api("voices", "DELETE", alias),
    "voice/consent": Api("voices", "GET PUT DELETE"),
    "voice/quality": Api(("voices", "synthesize"), "POST"),
    "provenance/verify": Api(None, "POST"),
    "keys": Api("keys", "GET POST"),
    "keys/<uuid:pk>": Api("keys", "GET PATCH DELETE", key),
    "keys/<uuid:pk>/rotate": Api("keys", "POST", key),
    "usage": Api("usage", "GET"),
    "me": Api(None, "GET"),
    "me/export": Api("keys", "GET"),
    "me/erase": Api("keys", "POST"),
    "webhooks/secret": Api("keys", "GET"),
    "webhooks/secret/rotate": Api("keys", "POST"),
    "webhooks/deliveries": Api("usage", "GET"),
    "webhooks/deliveries/<uuid:pk>/redeliver": Api("usage", "POST", delivery),
}
USERS_OF_VOICES = ("voices", "synthesize", "covers")


def openai(scope: Scope, methods: str, owned: Any = None) -> Api:
    return Api(scope, methods, owned, root="openai/v1/", header="X-API-Key", envelope=False)


def elevenlabs(scope: Scope, methods: str, owned: Any = None, file: bool = False) -> Api:
    return Api(scope, methods, owned, file, root="elevenlabs/", header="xi-api-key", envelope=False)


def gptsovits(scope: Scope, methods: str) -> Api:
    return Api(scope, methods, root="gptsovits/", envelope=False)


GPTSOVITS = {
    "": Api("synthesize", "GET POST", root="gptsovits", envelope=False),
    "tts": gptsovits("synthesize", "GET POST"),
    "speakers": gptsovits("synthesize", "GET"),
    "set_gpt_weights": gptsovits("synthesize", "GET"),
    "set_sovits_weights": gptsovits("synthesize", "GET"),
    "set_refer_audio": gptsovits("synthesize", "GET"),
    "change_refer": gptsovits("synthesize", "GET POST"),
    "set_model": gptsovits("synthesize", "GET POST"),
}
COMPATIBLE = {
    "audio/speech": openai("synthesize", "POST"),
    "audio/models": openai(None, "GET"),
    "audio/voices": openai(USERS_OF_VOICES, "GET POST"),
    "audio/voices/<str:name>": openai("voices", "DELETE", by_name(voice)),
    "audio/voice_consents": openai("voices", "GET POST"),
    "audio/voice_consents/<str:name>": openai("voices", "GET POST DELETE", by_name(recorded_consent)),
    "models": openai(None, "GET"),
    "models/<str:name>": openai(None, "GET"),
    **{
        f"v1/text-to-speech/<str:voice_id>{suffix}": elevenlabs("synthesize", "POST")
        for suffix in ("", "/stream", "/with-timestamps", "/stream/with-timestamps")
    },
    **{
        f"v1/text-to-dialogue{suffix}": elevenlabs("synthesize", "POST")
        for suffix in ("", "/stream", "/with-timestamps", "/stream/with-timestamps")
    },
    **{
        f"v1/{route}/<str:voice_id>{suffix}": elevenlabs("covers", "POST")
        for route in ("voice-changer", "speech-to-speech")
        for suffix in ("", "/stream")
    },
    "v1/voices": elevenlabs(USERS_OF_VOICES, "GET"),
    "v1/voices/add": elevenlabs("voices", "POST"),
    "v1/voices/<str:voice_id>": elevenlabs(USERS_OF_VOICES, "GET DELETE", by_name(voice)),
    "v1/voices/settings/default": elevenlabs(USERS_OF_VOICES, "GET"),
    "v1/voices/<str:voice_id>/settings": elevenlabs(USERS_OF_VOICES, "GET", by_name(voice)),
    "v1/voices/<str:voice_id>/settings/edit": elevenlabs("voices", "POST", by_name(voice)),
    "v1/voices/<str:voice_id>/edit": elevenlabs("voices", "POST", by_name(voice)),
    "v1/voices/<str:voice_id>/samples/<uuid:sample_id>": elevenlabs("voices", "DELETE", by_name(voice)),
    "v1/voices/<str:voice_id>/samples/<uuid:sample_id>/audio": elevenlabs("voices", "GET", by_name(voice)),
    "v2/voices": elevenlabs(USERS_OF_VOICES, "GET"),
    "v1/models": elevenlabs(None, "GET"),
    "v1/history": elevenlabs("synthesize", "GET"),
    "v1/history/<str:item_id>": elevenlabs("synthesize", "GET DELETE", by_name(synthesis)),
    "v1/pronunciation-dictionaries": elevenlabs(USERS_OF_VOICES, "GET"),
    "v1/pronunciation-dictionaries/add-from-file": elevenlabs("voices", "POST"),
    "v1/pronunciation-dictionaries/add-from-rules": elevenlabs("voices", "POST"),
    "v1/pronunciation-dictionaries/<str:name>": elevenlabs(USERS_OF_VOICES, "GET PATCH", by_name(lexicon)),
    **{
        f"v1/pronunciation-dictionaries/<str:name>/{rules}": elevenlabs("voices", "POST", by_name(lexicon))
        for rules in ("set-rules", "add-rules", "remove-rules")
    },
    "v1/pronunciation-dictionaries/<str:name>/<str:version>/download": elevenlabs(
        USERS_OF_VOICES, "GET", by_name(lexicon)
    ),
    "v1/history/<str:item_id>/audio": elevenlabs("synthesize", "GET", by_name(synthesis)),
    "v1/history/download": elevenlabs("synthesize", "POST"),
    "v1/user": elevenlabs(None, "GET"),
    "v1/user/subscription": elevenlabs(None, "GET"),
}
# Answered to everybody: they show nothing of anybody.
OPEN = {
    "", "health", "favicon.ico", "openapi.json", "docs", "redoc", "language",
    *(f"{tree}/{page}" for tree in ("openai", "elevenlabs", "gptsovits") for page in ("openapi.json", "docs")),
    "openai/<path:rest>", "elevenlabs/<path:rest>", "gptsovits/<path:rest>",  # A 404 in their shape.
    # They say that these are WebSockets, whoever asks.
    *(f"elevenlabs/v1/text-to-speech/<str:voice_id>/{kind}" for kind in ("stream-input", "multi-stream-input")),
}  # fmt: skip
# By a token of its own, and not there without one.
TOKEN = {"metrics"}
# By a signature that stands in them, for whoever was given the link: tests/jobs/test_links.py.
SIGNED = {"s/<str:token>", "s/<str:token>/audio"}
# By a key that stands in them.
KEY_IN_PATH = {route for route in ROUTES if "<PathKey:token>" in route}
# Not there unless it is switched on; then they are the views of /gptsovits.
AT_ROOT = {path for path in GPTSOVITS if path} | {"control"}
CLOSED = {"gptsovits/control"}  # to every key


@dataclass(frozen=True)
class Pages:
    """Pages under a prefix, for people with a session. login: where others are sent; open: the few that need none."""

    login: str
    open: frozenset[str] = frozenset()
    staff_only: bool = True


PAGES = {
    "admin/": Pages("/admin/login/", frozenset({"admin/login/", "admin/logout/", "admin/jsi18n/"})),
    "account": Pages("/account/signin", frozenset({"account/signin", "account/signout"}), staff_only=False),
}


# --- All routes ---


API_ROUTES = {entry.root + path: entry for path, entry in [*API.items(), *COMPATIBLE.items(), *GPTSOVITS.items()]}
PAGE_ROUTES = [route for route in ROUTES if any(route.startswith(prefix) for prefix in PAGES)]


def test_every_route_is_declared() -> None:
    others = OPEN | TOKEN | SIGNED | KEY_IN_PATH | AT_ROOT | CLOSED
    undeclared = set(ROUTES) - set(API_ROUTES) - others - set(PAGE_ROUTES)
    assert not undeclared, "Declare these in tests/test_isolation.py: who may use them, and what is somebody's there."
    assert not (set(API_ROUTES) | others) - set(ROUTES), "These are declared, and are no routes."
    assert len(PAGE_ROUTES) > 30


@pytest.fixture(autouse=True)
def quiet(engine: FakeEngine, db: None) -> None:
    """No engine is started by a test that is about who may start one."""


class Caller:
    """Sends what a route takes, with a key."""

    def __init__(self, route: str, secret: str = "", values: dict[str, Any] | None = None) -> None:
        self.entry = API_ROUTES[route]
        self.client = APIClient(headers={self.entry.header: secret} if secret else {})
        self.path = path_of(route, values)

    def send(self, method: str) -> Any:
        return self.client.generic(method, self.path, "{}", content_type="application/json")

    def refused(self, status: int, code: str, methods: Any = None, **details: Any) -> None:
        for method in methods or self.entry.methods.split():
            response = self.send(method)
            assert response.status_code == status, (method, self.path, response.status_code)
            if self.entry.envelope and method != "HEAD":
                body = response.json()
                assert (body["success"], body["error"]) == (False, code), (method, self.path, body)
                assert details.items() <= body["details"].items()
            if status == 401:
                assert response["WWW-Authenticate"]


api_routes = pytest.mark.parametrize("route", API_ROUTES)


@api_routes
def test_without_a_key_nothing_is_told_whatever_the_method(route: str) -> None:
    Caller(route).refused(401, "missing_api_key", METHODS)


@api_routes
def test_unknown_expired_and_revoked_keys_are_strangers(route: str, tenant: Tenant) -> None:
    _, expired = ApiKey.objects.issue(tenant.user, "x", expires_at=timezone.now() - timedelta(seconds=1))
    revoked, gone = ApiKey.objects.issue(tenant.user, "y")
    revoked.revoke()
    for secret in ("vck_unknown", expired, gone):
        Caller(route, secret).refused(401, "invalid_api_key")


@api_routes
def test_a_session_is_no_key(route: str) -> None:
    caller = Caller(route)
    caller.client.force_login(User.objects.create_superuser("root"))
    caller.refused(401, "missing_api_key")


@api_routes
def test_a_key_does_what_its_scopes_say_and_no_more(route: str, tenant: Tenant) -> None:
    scope = API_ROUTES[route].scope
    scopes = (scope,) if isinstance(scope, str) else scope or ()
    others = [name for name in SCOPES if name not in scopes]
    _, secret = ApiKey.objects.issue(tenant.user, "narrow", scopes=others if scopes else [])
    if scopes:
        Caller(route, secret).refused(403, "permission_denied", scope=scopes[0])
    baker.make(StandingConsent, tenant=tenant.user)  # without which ElevenLabs' clients may add no voice
    for one in scopes or (None,):
        if one:
            _, secret = ApiKey.objects.issue(tenant.user, "one", scopes=[one])
        # On compatible routes those who may use voices see them; the first scope is for changing them.
        looking_only = not API_ROUTES[route].envelope and one != (scopes or (None,))[0]
        for method in ["GET"] if looking_only else API_ROUTES[route].methods.split():
            assert Caller(route, secret).send(method).status_code not in (401, 403), method


@api_routes
def test_a_blocked_tenant_is_told_so_and_served_nothing(route: str, tenant: Tenant) -> None:
    User.objects.filter(pk=tenant.user.pk).update(is_active=False)
    Caller(route, tenant.secret).refused(403, "tenant_blocked")


@api_routes
def test_other_methods_are_refused(route: str, tenant: Tenant) -> None:
    allowed = {"HEAD", *API_ROUTES[route].methods.split()}
    Caller(route, tenant.secret).refused(405, "method_not_allowed", [name for name in METHODS if name not in allowed])


def everything() -> dict[str, list[dict[str, Any]]]:
    """All rows of the product, but those that every request of a key writes."""
    written = {"RequestLog", "AuditEntry"}
    rows = {
        model.__name__: list(model.objects.order_by("pk").values())
        for app in ("voiceproject", "voices", "covers")
        for model in apps.get_app_config(app).get_models()
        if model.__name__ not in written
    }
    for row in rows["ApiKey"]:
        row.pop("last_used_at")
    return rows


@pytest.mark.parametrize("route", [route for route, entry in API_ROUTES.items() if entry.owned])
def test_what_is_another_tenants_is_not_there(route: str, tenant: Tenant, other: Tenant) -> None:
    entry = API_ROUTES[route]
    assert entry.owned
    values = entry.owned(tenant.user)
    before = everything()
    Caller(route, other.secret, values).refused(404, "not_found")
    assert everything() == before
    # It is there for its owner: the id was not simply a wrong one.
    method = entry.methods.split()[0]
    response = Caller(route, tenant.secret, values).send(method)
    assert response.status_code != 404, response.content
    if entry.file:
        assert b"".join(response.streaming_content) == b"RIFF of one tenant"


@pytest.mark.parametrize("route", [r for r, entry in API_ROUTES.items() if not entry.owned and "GET" in entry.methods])
def test_a_list_shows_nothing_of_another_tenant(route: str, tenant: Tenant, other: Tenant) -> None:
    owners = {entry.owned for entry in API_ROUTES.values() if entry.owned}
    ids = [str(made(tenant.user)["pk"]) for made in owners]
    response = Caller(route, other.secret).send("GET")
    assert response.status_code < 500 or route.endswith("voice/health")
    body = b"".join(response.streaming_content) if response.streaming else response.content
    if route.endswith("me/export"):
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            body = b"".join([name.encode() + archive.read(name) for name in archive.namelist()])
    for name in (*ids, "alice", tenant.key.prefix):
        assert name.encode() not in body


@pytest.mark.parametrize("route", sorted(OPEN))
def test_what_is_open_shows_nothing_of_a_tenant(route: str, tenant: Tenant) -> None:
    job = synthesis(tenant.user)
    response = Client().get(path_of(route))
    nowhere = (404,) if route.endswith("<path:rest>") else (426,) if route.endswith("stream-input") else ()
    assert response.status_code in (nowhere or (200, 302, 503))
    body = b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]
    for secret in ("alice", str(job["pk"]), tenant.secret, tenant.key.prefix):
        assert secret.encode() not in body
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert Client().generic(method, path_of(route)).status_code in (nowhere or (302, 405))


@pytest.mark.parametrize("route", sorted(KEY_IN_PATH | AT_ROOT | CLOSED))
def test_a_key_in_a_header_opens_no_route_that_wants_another_one(route: str, tenant: Tenant) -> None:
    wanted = 401 if route in KEY_IN_PATH else 403 if route in CLOSED else 404
    for method in ("GET", "POST"):
        response = tenant.client.generic(method, path_of(route), "{}", content_type="application/json")
        assert (response.status_code, "message" in response.json()) == (wanted, True)


@pytest.mark.parametrize("route", sorted(TOKEN))
def test_a_route_with_a_token_is_not_there_for_a_key(route: str, tenant: Tenant, settings: Any) -> None:
    assert tenant.client.get(path_of(route)).status_code == 404
    settings.METRICS_TOKEN = "a-token-of-metrics-only"
    for client in (tenant.client, APIClient(), APIClient(headers={"Authorization": "Bearer wrong"})):
        assert client.get(path_of(route)).status_code == 401


@pytest.mark.parametrize("route", PAGE_ROUTES)
def test_pages_for_people_want_a_session_of_theirs(route: str, tenant: Tenant) -> None:
    pages = next(pages for prefix, pages in PAGES.items() if route.startswith(prefix))
    if route in pages.open:
        return
    signed_in = Client()
    signed_in.force_login(tenant.user)
    strangers = [Client(), APIClient(headers={"X-API-Key": tenant.secret})]
    for client in [*strangers, signed_in] if pages.staff_only else strangers:
        for method in ("GET", "POST"):
            response = client.generic(method, path_of(route))
            if response.status_code in (301, 302):
                # To the form, or to a page of which the same is asked.
                place = response["Location"]
                assert place.startswith(pages.login) or path_of(route) in place or method == "GET", place
                if not place.startswith(pages.login):
                    response = client.get(place)
                    assert response.status_code in (302, 403, 404), place
                    assert response.status_code != 302 or response["Location"].startswith(pages.login)
            else:
                assert response.status_code in (403, 404), (method, route, response.status_code)


@pytest.mark.parametrize("field", ["song", "reference_voice", "reference_audio"])
def test_a_body_names_no_file_of_another_tenant(
    field: str, tenant: Tenant, other: Tenant, reference_wav: bytes
) -> None:
    """Files are sent, never named: a path or an id in place of one is refused."""
    stolen = Synthesis.objects.get(pk=synthesis(tenant.user)["pk"]).audio.name
    if field == "reference_audio":
        url = "/api/v1/voice/synthesize"
        form: dict[str, Any] = {"text": "Hello"}
    else:
        url = "/api/v1/cover/jobs"
        form = {"song": upload(reference_wav), "reference_voice": upload(reference_wav)}
    for name in (stolen, f"../media/{stolen}", "/etc/passwd", "file:///etc/passwd"):
        response = other.client.post(url, {**form, field: name})
        assert (response.status_code, response.json()["error"]) == (400, "validation_error")


@pytest.mark.parametrize("route", ["api/v1/voice/synthesize", "api/v1/cover/jobs"])
def test_a_body_names_no_voice_of_another_tenant(
    route: str, tenant: Tenant, other: Tenant, reference_wav: bytes
) -> None:
    fields: dict[str, Any] = {"text": "Hello"} if "synthesize" in route else {"song": upload(reference_wav)}
    answers = []
    for voice_id in (voice(tenant.user)["pk"], uuid.uuid4()):
        response = other.client.post(f"/{route}", {**fields, "voice_id": str(voice_id)})
        assert response.status_code in (400, 404), response.content
        answers.append(response.json()["error"])
        if "song" in fields:
            fields["song"] = upload(reference_wav)
    assert answers[0] == answers[1]  # A stranger's reads like one that there never was.


# --- WebSockets: not in the resolver, but in the registry ---

SOCKETS = {r"/elevenlabs/v1/text-to-speech/(?P<voice_id>[^/]+)/(?P<kind>stream-input|multi-stream-input)": "synthesize"}


def test_every_socket_is_declared() -> None:
    assert {route.path.pattern: route.scopes for route in registry.websockets} == {
        pattern: (scope,) for pattern, scope in SOCKETS.items()
    }


def opened(voice_id: str, secret: str, *, in_message: bool) -> tuple[int, str]:
    """The status of the handshake, and the code of the error that is told there or on the socket, "" for none."""
    headers = [(b"xi-api-key", secret.encode())] if secret and not in_message else []
    path = f"/elevenlabs/v1/text-to-speech/{voice_id}/stream-input"
    scope = {"type": "websocket", "path": path, "query_string": b"", "headers": headers, "subprotocols": [],
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "ws"}  # fmt: skip
    first = {"text": "", "xi_api_key": secret} if in_message else {"text": ""}
    said = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": json.dumps(first)}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return said.pop(0) if said else {"type": "websocket.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(websockets.serve(scope, receive, send))
    if sent[0]["type"] == "websocket.http.response.start":
        return sent[0]["status"], json.loads(sent[1]["body"])["detail"]["code"]
    told = [json.loads(one["text"]) for one in sent if one["type"] == "websocket.send"]
    return 101, "".join(one.get("error", "") for one in told)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("in_message", [False, True])
def test_a_socket_is_for_those_who_may_speak_in_their_own_voices(
    tenant: Tenant, other: Tenant, in_message: bool
) -> None:
    owned = str(voice(tenant.user)["pk"])
    _, expired = ApiKey.objects.issue(tenant.user, "x", expires_at=timezone.now() - timedelta(seconds=1))
    _, narrow = ApiKey.objects.issue(tenant.user, "y", scopes=[name for name in SCOPES if name != "synthesize"])
    blocked = Tenant("mallory")
    User.objects.filter(pk=blocked.user.pk).update(is_active=False)
    for secret, code in (
        ("vck_unknown", "invalid_api_key"),
        (expired, "invalid_api_key"),
        (narrow, "missing_permissions"),
        (blocked.secret, "tenant_blocked"),
        (other.secret, "voice_id_does_not_exist"),
        (tenant.secret, ""),
    ):
        assert opened(owned, secret, in_message=in_message) == (101, code)
    assert opened(owned, "", in_message=True) == (101, "needs_authorization")
