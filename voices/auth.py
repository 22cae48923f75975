"""Who is asking: API keys in headers, and what each may do."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from voiceproject.errors import PublicError
from voices.models import ApiKey


class ApiKeyAuthentication(BaseAuthentication):
    """`X-API-Key: <key>` or `Authorization: Bearer <key>`. Nothing else: no session, no query string."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey]:
        secret = request.META.get("HTTP_X_API_KEY", "").strip()
        if not secret:
            scheme, _, credential = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
            secret = credential.strip() if scheme.lower() == "bearer" else ""
        if not secret and any(ApiKey.MARK in value for value in request.META.get("QUERY_STRING", "").split("&")):
            message = (
                "Keys in a URL are refused, since URLs are logged: revoke this one, and send another as X-API-Key."
            )
            raise PublicError("missing_api_key", message)
        if not secret:
            raise PublicError("missing_api_key", "Send your key as X-API-Key or as Authorization: Bearer.")
        key = ApiKey.objects.find(secret)
        if key is None:
            raise PublicError("invalid_api_key", "This API key is not valid.")
        if not key.user.is_active:
            raise PublicError("tenant_blocked", "This account is blocked. Ask the operator.")
        key.touch()
        request._request.tenant_id = key.user_id  # type: ignore[attr-defined] # for the access log
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return 'ApiKey realm="api", header="X-API-Key"'


def credentials(request: Request) -> tuple[User, ApiKey]:
    """The tenant and the key of a request that HasScope has let through."""
    if not isinstance(request.user, User) or not isinstance(request.auth, ApiKey):
        raise PublicError("missing_api_key", "Send your key as X-API-Key or as Authorization: Bearer.")
    return request.user, request.auth


class HasScope(BasePermission):
    """The key has the view's `required_scope`: one of them where it is a tuple; None: any valid key."""

    def has_permission(self, request: Request, view: Any) -> bool:
        _, key = credentials(request)
        scope = getattr(view, "required_scope", None)
        scopes = (scope,) if isinstance(scope, str) else scope or ()
        if scopes and not set(scopes) & set(key.scopes):
            raise PublicError("permission_denied", f"This key lacks the scope {scopes[0]}.", {"scope": scopes[0]})
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
