"""The OpenAPI document: every operation lists the errors that it can answer, all in the one envelope."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from voiceproject.errors import STATUS_OF_CODE


class ErrorSerializer(serializers.Serializer):
    success = serializers.BooleanField(help_text="Always false")
    error = serializers.CharField(help_text="A code for programs")
    message = serializers.CharField(help_text="A text for people")
    details = serializers.DictField(help_text="Depends on the code; for validation_error: field -> messages")


class EnvelopeSchema(AutoSchema):
    """Adds the error answers. A view names unusual ones in `error_statuses`: action or method -> statuses."""

    ALWAYS = (400, 401, 403, 405, 429, 500, 503)

    def get_description(self) -> str:  # type: ignore[override] # drf-spectacular calls it without arguments
        # Operations say what they do in extend_schema; a view's docstring is for who reads the code.
        return ""

    def _statuses(self) -> set[int]:
        action = getattr(self.view, "action", "") or self.method.lower()
        statuses = set(self.ALWAYS)
        if not getattr(self.view, "authentication_classes", ()):
            statuses -= {401, 403, 429}
        statuses.update(getattr(self.view, "error_statuses", {}).get(action, ()))
        if self.method == "POST":
            statuses |= {413, 415}
        if "{" in self.path:
            statuses.add(404)
        return statuses

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies = super()._get_response_bodies(direction)
        for status in sorted(self._statuses()):
            codes = [code for code, its_status in STATUS_OF_CODE.items() if its_status == status]
            if status == 400 and self.method != "POST":
                codes = ["validation_error"]
            body = self._get_response_for_code(ErrorSerializer, str(status), ["application/json"])
            body["description"] = "`error` is " + " or ".join(f"`{code}`" for code in codes)
            bodies.setdefault(str(status), body)
        return bodies
