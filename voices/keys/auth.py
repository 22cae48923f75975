"""Who is asking: API keys in headers, and what each may do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from voiceproject.errors import PublicError
from voiceproject.telemetry.logging import note
from voiceproject.tenants import ratelimit
from voiceproject.web.client_ip import client_address, is_within
from voices.keys.models import ApiKey

NO_KEY_OR_PATH = (
    "No API key was sent. Send yours as X-API-Key or Authorization: Bearer; or, for a client that sends no headers, "
    "make a key of the kind `path` (POST /api/v1/keys), and let it call /gptsovits/<that key>/tts."
)
NO_KEY = "No API key was sent. Send yours as X-API-Key, or as Authorization: Bearer."


class ApiKeyAuthentication(BaseAuthentication):
    """`X-API-Key: <key>` or `Authorization: Bearer <key>`. Nothing else: no session, no query string."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey]:
        known = getattr(request._request, "credentials", None)
        if known is not None:  # With the head; this is the same request, with its body.
            note(tenant=known[0].pk, key=known[1].pk)
            return known
        secret = request.META.get("HTTP_X_API_KEY", "").strip()
        if not secret:
            scheme, _, credential = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
            secret = credential.strip() if scheme.lower() == "bearer" else ""
        if not secret:
            _refuse_key_in_url(request.META)
        if not secret and request.META.get("HTTP_AUTHORIZATION"):
            message = (
                "No API key was found in Authorization. It must be Bearer, a space and the key; or send X-API-Key."
            )
            raise PublicError("missing_api_key", message)
        if not secret:
            raise PublicError("missing_api_key", NO_KEY)
        return signed_in(request, _find(secret, request.META))

    def authenticate_header(self, request: Request) -> str:
        return 'ApiKey realm="api", header="X-API-Key"'


class KeylessAuthentication(ApiKeyAuthentication):
    """For clients that can send no header: a token in the path (`token` of the route), or the address that they have.

    A key in a header is taken too.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiKey]:
        known = getattr(request._request, "credentials", None)
        token = request.parser_context["kwargs"].get("token") if request.parser_context else None
        if known is not None or (token is None and self._has_key(request)):
            return super().authenticate(request)
        if token is not None:
            return signed_in(request, _find(token.lower(), request.META, ApiKey.Kind.PATH))
        key = None
        if settings.GPTSOVITS_ADDRESS_KEYS:
            key = ApiKey.objects.find_by_address(client_address(request.META, settings.TRUSTED_PROXIES))
        if key is None:
            _refuse_key_in_url(request.META)
            raise PublicError("missing_api_key", NO_KEY_OR_PATH)
        _refuse_foreign_page(request.META)
        return signed_in(request, _admitted(key, request.META))

    @staticmethod
    def _has_key(request: Request) -> bool:
        return bool(request.META.get("HTTP_X_API_KEY", "").strip() or request.META.get("HTTP_AUTHORIZATION"))


def signed_in(request: Request, key: ApiKey) -> tuple[User, ApiKey]:
    request._request.tenant_id = key.user_id  # type: ignore[attr-defined] # for the access log
    request._request.credentials = key.user, key  # type: ignore[attr-defined]
    return key.user, key


def _refuse_key_in_url(meta: Mapping[str, Any]) -> None:
    if ApiKey.MARK in meta.get("QUERY_STRING", ""):
        message = "Keys in a URL are refused, since URLs are logged: revoke this one, and send another as X-API-Key."
        raise PublicError("missing_api_key", message)


def _refuse_foreign_page(meta: Mapping[str, Any]) -> None:
    """An address is not the will of who has it: a page of somebody else in a browser there could ask too."""
    origin = meta.get("HTTP_ORIGIN", "")
    foreign = bool(origin) or meta.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin")
    if foreign and origin not in settings.CORS_ORIGINS:
        raise PublicError("permission_denied", "A page in a browser may ask so only from one of CORS_ORIGINS.")


def _find(secret: str, meta: Mapping[str, Any], kind: str = ApiKey.Kind.HEADER) -> ApiKey:
    """The key with this secret, for a request with this META. Raises PublicError."""
    key = ApiKey.objects.find(secret, kind)
    if key is None:
        message = "This API key is not valid. Send it whole; it may also have expired, or been revoked."
        raise PublicError("invalid_api_key", message)
    return _admitted(key, meta)


def _admitted(key: ApiKey, meta: Mapping[str, Any]) -> ApiKey:
    """The key, if a request with this META may use it. Raises PublicError."""
    if not key.user.is_active:
        raise PublicError("tenant_blocked", "This account is blocked. Ask the operator.")
    if key.allowed_networks:
        address = client_address(meta, settings.TRUSTED_PROXIES)
        if not is_within(address, key.allowed_networks):
            message = f"This key may not be used from {address or 'a Unix socket'}."
            raise PublicError("permission_denied", message, {"address": address})
    key.touch()
    note(tenant=key.user_id, key=key.pk)
    return key


def _check_scope(key: ApiKey, scopes: tuple[str, ...]) -> None:
    if scopes and not set(scopes) & set(key.scopes):
        raise PublicError("permission_denied", f"This key lacks the scope {scopes[0]}.", {"scope": scopes[0]})


def admit(meta: Mapping[str, Any], secret: str, scopes: tuple[str, ...]) -> tuple[User, ApiKey]:
    """For what is no request of REST framework: the tenant and the key, with the checks of all three classes here."""
    if not secret:
        _refuse_key_in_url(meta)
        raise PublicError("missing_api_key", NO_KEY)
    key = _find(secret, meta)
    _check_scope(key, scopes)
    standings = ratelimit.take(key.rate_limits())
    if standings and not (tightest := _tightest(standings)).accepted:
        raise _too_often(tightest)
    return key.user, key


def credentials(request: Request) -> tuple[User, ApiKey]:
    """The tenant and the key of a request that HasScope has let through."""
    if not isinstance(request.user, User) or not isinstance(request.auth, ApiKey):
        raise PublicError("missing_api_key", NO_KEY)
    return request.user, request.auth


class HasScope(BasePermission):
    """The key has the view's `required_scope`: one of them where it is a tuple; None: any valid key."""

    def has_permission(self, request: Request, view: Any) -> bool:
        _, key = credentials(request)
        scope = getattr(view, "required_scope", None)
        scopes = (scope,) if isinstance(scope, str) else scope or ()
        request._request.scopes = scopes  # type: ignore[attr-defined] # a stream ends with the last of them
        _check_scope(key, tuple(scopes))
        return True


def _tightest(standings: list[ratelimit.Standing]) -> ratelimit.Standing:
    """What is told: what refuses, else what leaves the least."""
    return min(standings, key=lambda s: (s.accepted, s.remaining, -s.reset_seconds))


def _too_often(standing: ratelimit.Standing) -> PublicError:
    whose = standing.limit.name.partition(":")[0]
    return PublicError(
        "rate_limited",
        f"{'This key' if whose == 'key' else 'Your account'} may send {standing.limit.requests} requests in "
        "any 60 seconds. Retry-After says when the next one is taken.",
        {"limit": standing.limit.requests, "limit_of": whose},
        retry_after=max(1.0, standing.reset_seconds),
    )


class WithinRate(BaseThrottle):
    """Counts the request against the tenant's and the key's requests a minute, before its body is read.

    Where neither is limited nothing is asked and nothing written.
    """

    def allow_request(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiKey) or hasattr(request._request, "rate_headers"):
            return True  # A route that is open to all, or a request that was counted with its head.
        standings = ratelimit.take(request.auth.rate_limits())
        if not standings:
            return True
        standing = _tightest(standings)
        request._request.rate_headers = {  # type: ignore[attr-defined] # RequestMiddleware sends them
            "X-RateLimit-Limit": str(standing.limit.requests),
            "X-RateLimit-Remaining": str(standing.remaining),
            "X-RateLimit-Reset": str(math.ceil(standing.reset_seconds)),
        }
        if not standing.accepted:
            raise _too_often(standing)
        return True


class ApiKeyScheme(OpenApiAuthenticationExtension):
    target_class = ApiKeyAuthentication
    name = ["ApiKey", "Bearer"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            {"type": "http", "scheme": "bearer"},
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        return [{"ApiKey": []}, {"Bearer": []}]
