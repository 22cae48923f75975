"""/api/v1/provenance: whether a recording was made here, never by whom."""

from __future__ import annotations

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.provenance import verification
from voiceproject.provenance.models import Mark
from voiceproject.web.api import BodyLimitMixin, SizedFileField, StrictSerializer
from voiceproject.web.slots import waiting_slot
from voiceproject.web.uploads import upload_path


class VerifySerializer(StrictSerializer):
    file = SizedFileField(max_bytes_setting="COVER_MAX_UPLOAD_SIZE", help_text="The recording")


class FindingSerializer(serializers.Serializer):
    made_here = serializers.BooleanField()
    made_at = serializers.DateTimeField(allow_null=True, help_text="Where it was made here")
    how = serializers.ChoiceField(
        ("manifest", "hash", "fingerprint"),
        allow_null=True,
        help_text="By what it was found: a manifest of ours that holds, the very file, or its sound",
    )
    kind = serializers.ChoiceField(Mark.Kind.choices, allow_null=True)
    manifest = serializers.ChoiceField(
        ("none", "ours", "foreign", "broken"),
        help_text="Its C2PA manifest. foreign: intact, and signed by somebody else; broken: the file was altered since "
        "it was signed, or the signature is forged",
    )
    manifest_valid = serializers.BooleanField(
        allow_null=True, help_text="Whether content hash and signature hold, whoever signed; null without a manifest"
    )
    warnings = serializers.ListField(
        child=serializers.CharField(),
        help_text="What may be missing of the file, or was left out; of what was listened to",
    )


class VerifyView(BodyLimitMixin, APIView):
    required_scope = None

    def get_max_body_bytes(self) -> int:
        return settings.COVER_MAX_UPLOAD_SIZE

    @extend_schema(
        operation_id="verify_provenance",
        summary="Whether and when a recording was made here",
        description="By its C2PA manifest, by its SHA-256, or by its sound: excerpts of 5 s and more are found also "
        "after MP3 or Opus. It never says by whom. A file that is none of ours and no audio is 400 `invalid_audio`.",
        request={"multipart/form-data": VerifySerializer},
        responses=FindingSerializer,
        tags=["provenance"],
    )
    def post(self, request: Request) -> Response:
        serializer = VerifySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        # Listening to a long file takes seconds; some threads are always left for others.
        with waiting_slot(request.user.pk):
            finding = verification.verify(upload_path(serializer.validated_data["file"]))
        return Response(FindingSerializer(finding).data)
