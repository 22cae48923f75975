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
