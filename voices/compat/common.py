"""What the routes for other services' clients share: who speaks, the synthesis of a text, streams in other formats.

Their requests become ours here, so that bounds, quotas, limits and the ledger are those of our own API.
"""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import uuid
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
from django.http import StreamingHttpResponse
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.media.formats import Encoder, Output, Samples, encode_file
from voiceproject.provenance.manifest import MIME_TYPES, sign, without_manifest
from voiceproject.provenance.marks import mark_sent
from voiceproject.telemetry.logging import current
from voiceproject.tenants import textfilter
from voiceproject.web.api import BodyLimitMixin, client_gone, warning_headers
from voiceproject.web.errors import as_public_error, exception_handler
from voices.compat.schema import CompatSchema
from voices.engines import configured
from voices.engines.interface import Reference, SynthesisRequest
from voices.keys.auth import credentials
from voices.lexicons.serializers import named
from voices.lexicons.stored import Named, for_text
from voices.library import selection
from voices.library.models import Voice
from voices.speech import registry, synthesis
from voices.speech.models import Synthesis
from voices.speech.serializers import MAX_SEED, SpeakTextSerializer, check_text

WAV_HEADER_BYTES = 44
PCM_RATE = 24_000  # of OpenAI's `pcm`, in Hz
MIN_SPEED, MAX_SPEED = 0.5, 2.0


class CompatView(BodyLimitMixin, APIView, ABC):
    """A view whose errors have another service's shape. field_names: our names of fields -> its names.

    tree, tag, error_serializer: where it stands in which OpenAPI document, and that shape there. error_serializers: of
    statuses that have another.
    """

    schema = CompatSchema()
    field_names: dict[str, str] = {}
    tree: str | None = None
    tag = ""
    error_serializer: Any = None
    error_serializers: dict[int, Any] = {}
    refused: Any = {}  # what REST framework, or else a PublicError, says of the fields

    @abstractmethod
    def render_error(self, error: PublicError, response: Response) -> dict[str, Any]:
        """The body of an error; headers are set on the response."""

    def get_exception_handler(self) -> Any:
        def handle(exc: Exception, context: dict[str, Any]) -> Response:
            response = exception_handler(exc, context)
            error = as_public_error(exc)
            # What is wrong in a nested field is told by where it stands; `details` have it as text.
            self.refused = exc.detail if isinstance(exc, ValidationError) else error.details
            response.data = self.render_error(error, response)
            return response

        return handle

    def param(self, error: PublicError) -> str | None:
        """The field that an error is about, by its name there."""
        if error.code != "validation_error":
            return self.name_of(error.details.get("field"))
        return self.name_of(next(iter(error.details), None))

    def name_of(self, field: str | None) -> str | None:
        """A field's name there; `turns[1].text` goes by the name of `turns`."""
        if not field or field == "non_field_errors":
            return None
        own = re.split(r"[.\[]", field, maxsplit=1)[0]
        return f"{self.field_names.get(own, own)}{field.removeprefix(own)}"

    def message(self, error: PublicError) -> str:
        """What an error says, with a field at its beginning by its name there."""
        own, rest = re.fullmatch(r"(\w*)(.*)", error.message, re.DOTALL).groups()  # type: ignore[union-attr]
        return (
            f"{self.field_names[own]}{rest}" if own in self.field_names and rest[:1] in tuple(".[:") else error.message
        )


class UnknownPathMixin:
    """Answers `not_found` in the other service's shape, for paths that it has and we do not. Needs no key."""

    authentication_classes: Any = ()
    permission_classes: Any = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.path.endswith(("/transcriptions", "/translations", "/speech-to-text")):
            raise PublicError("not_found", "Transcription is not offered here.")
        raise PublicError("not_found", "There is no such path here.")


def find_own(request: Request, name: str) -> Voice:
    """The tenant's voice, also one that an operator took down. Raises PublicError not_found."""
    try:
        voice = Voice.objects.for_tenant(request.user).filter(pk=uuid.UUID(name.removeprefix("voice_"))).first()
    except ValueError:
        voice = None
    if voice is None:
        message = "There is no such voice, or it is not yours."
        raise PublicError("not_found", message, {"voice_id": [message]})
    return voice


def model_id(name: str, tenant: Any) -> str:
    """One of ours, or the default for any name of another service."""
    return name if name and registry.speaks(name, tenant.pk) else ""


class Speaking:
    """One text of one request. Its synthesis is started; call `whole` or `stream`.

    speaker: of `speakers.find`; fields: as voices.speech.serializers.SpeakTextSerializer takes them; lexicons: those
    that it names; output: what the client gets where that is not the fields' response_format. Raises PublicError and
    ValidationError.
    """

    def __init__(
        self,
        request: Request,
        speaker: str | Voice,
        fields: dict[str, Any],
        *,
        streamed: bool,
        lexicons: Sequence[Named] = (),
        output: str = "",
    ) -> None:
        tenant, key = credentials(request)
        voice = speaker if isinstance(speaker, Voice) else None
        serializer = SpeakTextSerializer(data=fields, context={"tenant": tenant.pk})
        serializer.is_valid(raise_exception=True)
        checked = serializer.validated_data
        registry.use_model_of(checked, voice.pk if voice else None, tenant.pk)
        textfilter.check(request, checked["text"], "synthesis", "text")
        engine = configured.get_engine()
        if voice is None:
            preset = str(speaker)
            reference = Reference(np.zeros(0, np.float32), 24_000, f"preset:{preset}", preset=preset)
        else:
            reference = selection.choose(voice, engine).reference
        lexicon = for_text(checked["text"], tenant, [*lexicons, *named(checked)], voice.lexicon_id if voice else None)
        reading, warnings = check_text(checked, reference.transcript or "", reference.language, lexicon, early=streamed)
        if (find_window := getattr(engine, "reference_window", None)) is not None:
            find_window(reference)  # It refuses what is too short.
        seed = checked.get("seed")
        self.text: str = checked["text"]
        self.job = Synthesis(
            tenant=tenant,
            api_key=key,
            request_id=current("request_id"),
            text=self.text,
            language=checked["language"],
            voice_id=voice.pk if voice else None,
            reference_hash=reference.content_hash[:64],
            reference_text=reference.transcript or "",
            reference_language=reference.language,
            speed=checked["speed"],
            temperature=checked["temperature"],
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            model_id=checked["model_id"],
            response_format=checked["response_format"],
            output_format=output,
            engine=engine.name,
            warnings=warnings,
            lexicon=lexicon.as_json(),
        )
        synthesis.start(self.job)
        selection.check_still_there(self.job)
        self._gone = client_gone(request)
        self._order: SynthesisRequest = synthesis.request_for(
            self.job, reference, checked["model"], early=streamed, reading=reading
        )

    @property
    def headers(self) -> dict[str, str]:
        """What every answer with this audio has."""
        return warning_headers(told["message"] for told in self.job.warnings)

    def whole(self) -> synthesis.Speech:
        """All of it, encoded as the job's response_format says."""
        return synthesis.perform(self.job, self._order, self._gone)

    def stream(self) -> synthesis.SpeechStream:
        """The job's response_format must be wav for Transcoded."""
        return synthesis.SpeechStream(self.job, self._order, self._gone)


def file_of(speech: synthesis.Speech, job: Synthesis) -> bytes:
    """The file as the job's response_format says; a WAV is a header and samples alone, see `without_manifest`."""
    return without_manifest(speech.encoded) if job.response_format == "wav" else speech.encoded


def recode(speech: synthesis.Speech, job: Synthesis, output: Output) -> bytes:
    """Converts the WAV of a synthesis to another format."""
    return marked(encode_file(io.BytesIO(speech.encoded), output), output, job, what="speech")


def marked(content: bytes, output: Output, job: Job, *, what: str) -> bytes:
    """An encoded file, signed where its format can carry that ahead of the sound, else remembered by its hash.

    what: as for `sign`.
    """
    if output.format in MIME_TYPES and output.format != "wav":
        return sign(content, output.format, what=what, job_id=job.pk)
    mark_sent(job.pk, hashlib.sha256(content).hexdigest(), what=what)
    return content


class Transcoded:
    """A SpeechStream of WAV in another format: an iterator of bytes, to be closed in any case.

    What was sent is remembered by its hash, also where it broke off.
    """

    def __init__(self, stream: synthesis.SpeechStream, output: Output) -> None:
        self._stream = stream
        self._encoder = Encoder(stream.sample_rate, output)
        self._blocks = self._make()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._blocks)

    def close(self) -> None:
        self._blocks.close()
        self._encoder.abandon()
        self._stream.close()

    def _make(self) -> Generator[bytes, None, None]:
        sent = hashlib.sha256()
        empty = sent.digest()
        try:
            for data in self._transcode():
                sent.update(data)
                yield data
        finally:
            if sent.digest() != empty:
                mark_sent(self._stream.job_id, sent.hexdigest(), what="speech")

    def _transcode(self) -> Iterator[bytes]:
        for samples in samples_of(self._stream):
            if data := self._encoder.write(samples):
                yield data
        if data := self._encoder.close():
            yield data


def samples_of(stream: synthesis.SpeechStream) -> Iterator[Samples]:
    """A SpeechStream of WAV as samples: float32 (n,), -1..1, at its sample_rate. Raises as the stream."""
    header, rest = WAV_HEADER_BYTES, b""
    for block in stream:
        cut = min(header, len(block))
        header -= cut
        rest += block[cut:]
        even = len(rest) - len(rest) % 2
        samples = (np.frombuffer(rest[:even], "<i2") / 32_768).astype(np.float32)
        rest = rest[even:]
        yield samples


class Reshaped:
    """An iterator made from the blocks of a stream. Closing it closes the stream, even before the first block."""

    def __init__(self, made: Iterator[bytes], blocks: Transcoded) -> None:
        self._made = made
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._made)

    def close(self) -> None:
        self._blocks.close()


def streaming_response(blocks: Any, content_type: str) -> StreamingHttpResponse:
    """blocks: an iterator with `close`. The headers tell proxies not to buffer."""
    response = StreamingHttpResponse(blocks, content_type=content_type)
    response["X-Accel-Buffering"] = "no"
    response["Cache-Control"] = "no-store, no-transform"
    return response


def clamp_speed(speed: float) -> tuple[float, bool]:
    """The speed within our limits, and whether it was changed."""
    clamped = min(max(speed, MIN_SPEED), MAX_SPEED)
    return clamped, clamped != speed


def invalid(field: str, message: str) -> ValidationError:
    return ValidationError({field: [message]})
