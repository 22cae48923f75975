"""/api/v1/me/export and /api/v1/me/erase: everything that is held of a tenant, given out or deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.auth.models import User
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.errors import PublicError, StreamBroken
from voiceproject.tenants import audit
from voiceproject.web.api import BodyLimitMixin, StrictSerializer
from voiceproject.web.slots import acquire_slot
from voices.account import personal_data
from voices.keys.auth import credentials

log = logging.getLogger(__name__)


class Archive:
    """The blocks of a tenant's archive. Always close it. An error on the way cuts the response off."""

    def __init__(self, user: User, give_back: Callable[[], None]) -> None:
        self._blocks: Iterator[bytes] = personal_data.archive(user)
        self._give_back = give_back

    def __iter__(self) -> Archive:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._blocks)
        except StopIteration:
            raise
        except Exception as error:
            log.error("an export broke off", exc_info=error)
            raise StreamBroken from error

    def close(self) -> None:
        self._give_back()


def export(user: User, request: Any) -> HttpResponseBase:
    """The tenant's archive, as a download that is made while it is sent. Raises PublicError too_many_waiting."""
    slot = acquire_slot(user.pk)
    try:
        audit.record("account.export", request=request, tenant_id=user.pk, target_type="user")
        response = StreamingHttpResponse(Archive(user, slot), content_type="application/zip")
    except BaseException:
        slot()
        raise
    response["Content-Disposition"] = 'attachment; filename="account.zip"'
    response["Cache-Control"] = "no-store, no-transform"
    response["X-Accel-Buffering"] = "no"
    return response


class ExportView(APIView):
    required_scope = "keys"

    @extend_schema(
        operation_id="export_account",
        summary="Everything that is held of you, as a ZIP",
        description="JSON of all rows (keys without their secrets, jobs with their texts, the ledger of usage, the "
        "audit log), and all files. It is made while it is sent: `manifest.json` comes last, and an archive "
        "without it was cut off. Needs the scope `keys`.",
        responses={(200, "application/zip"): OpenApiResponse(OpenApiTypes.BINARY)},
        tags=["account"],
    )
    def get(self, request: Request) -> HttpResponseBase:
        tenant, _ = credentials(request)
        return export(tenant, request)


class EraseSerializer(StrictSerializer):
    confirmation_token = serializers.CharField(
        required=False, max_length=500, help_text="From the first answer; left out: that answer is given"
    )


class ErasureSerializer(serializers.Serializer):
    confirmation_token = serializers.CharField(help_text="Send it to the same address to erase your account")
    expires_at = serializers.DateTimeField()
    message = serializers.CharField()


class ErasingSerializer(serializers.Serializer):
    status = serializers.ChoiceField(["erasing"])
    message = serializers.CharField()


class EraseView(BodyLimitMixin, APIView):
    required_scope = "keys"

    @extend_schema(
        operation_id="erase_account",
        summary="Erase your account, in two steps",
        description="Without `confirmation_token` nothing is done: the answer is a token that is valid for ten "
        "minutes. With it all keys end at once, this one too, and within seconds the jobs are canceled and everything "
        "is deleted. Kept are the ledger of usage, the statements of consent and the audit log, the first two without "
        "the names that you gave to things. "
        "This cannot be undone. Needs the scope `keys`.",
        request={"application/json": EraseSerializer, "multipart/form-data": EraseSerializer},
        responses={200: ErasureSerializer, 202: ErasingSerializer},
        tags=["account"],
    )
    def post(self, request: Request) -> Response:
        tenant, _ = credentials(request)
        serializer = EraseSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        token = serializer.validated_data.get("confirmation_token")
        if token is None:
            message = "Send this token within ten minutes, and your account is erased for good. Export it before."
            answer = {
                "confirmation_token": personal_data.confirmation(tenant),
                "expires_at": personal_data.expires_at(),
                "message": message,
            }
            return Response(ErasureSerializer(answer).data, headers={"Cache-Control": "no-store"})
        if not personal_data.confirms(token, tenant):
            message = "It is not valid (any more): ask for another one, and send it within ten minutes."
            raise PublicError("validation_error", f"confirmation_token: {message}", {"confirmation_token": [message]})
        personal_data.request_erasure(tenant, request)
        return Response({"status": "erasing", "message": "All keys have ended; the rest follows."}, status=202)
