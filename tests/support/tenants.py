"""Tenants, with the clients that they send their requests by."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from rest_framework.test import APIClient

from voices.keys.models import ApiKey


class Tenant:
    """A user with a key and a client that sends it."""

    def __init__(self, username: str, **key_fields: Any) -> None:
        self.user = User.objects.create(username=username)
        self.key, self.secret = ApiKey.objects.issue(self.user, "test", **key_fields)
        self.client = APIClient(headers={"X-API-Key": self.secret})


# --- keys, over the API ---

KEYS_URL, MODELS_URL = "/api/v1/keys", "/api/v1/voice/models"


def make_key(client: APIClient, **fields: Any) -> Any:
    return client.post(KEYS_URL, {"name": "made", **fields}, format="json")


def made_key(client: APIClient, **fields: Any) -> dict[str, Any]:
    response = make_key(client, **fields)
    assert response.status_code == 201, response.content
    return response.json()


def change_key(client: APIClient, key: Any, **fields: Any) -> Any:
    return client.patch(f"{KEYS_URL}/{getattr(key, 'public_id', key)}", fields, format="json")


def rotate_key(client: APIClient, key: Any, **fields: Any) -> Any:
    return client.post(f"{KEYS_URL}/{getattr(key, 'public_id', key)}/rotate", fields, format="json")


def revoke_key(client: APIClient, key: Any) -> Any:
    return client.delete(f"{KEYS_URL}/{getattr(key, 'public_id', key)}")


def key_works(secret: str, **extra: str) -> int:
    return APIClient(headers={"X-API-Key": secret}).get(MODELS_URL, **extra).status_code


def with_key(tenant: Tenant, **fields: Any) -> tuple[ApiKey, APIClient]:
    """Another key of the tenant, and a client that sends it."""
    key, secret = ApiKey.objects.issue(tenant.user, "another", **fields)
    return key, APIClient(headers={"X-API-Key": secret})
