"""What a tenant owns: each makes one thing and returns the values that go into its URL. And the routes themselves."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.urls import URLPattern, URLResolver, get_resolver
from model_bakery import baker

from covers.models import CoverJob
from tests.support.audio import speech_like
from voiceproject.media import audio
from voiceproject.shares.models import Share
from voiceproject.webhooks.models import WebhookDelivery
from voices.keys.models import ApiKey
from voices.lexicons.models import Lexicon, LexiconVersion
from voices.library import quality
from voices.library.models import RecordedConsent, Voice, VoiceAlias, VoiceSample
from voices.speech.models import EngineModel, Synthesis, WeightsFile
from voices.training.models import Training, TrainingRecording

REPORT = quality.measure(speech_like(), 16_000)


def synthesis(owner: User) -> dict[str, Any]:
    made = baker.make(Synthesis, tenant=owner, status="succeeded", response_format="wav", background=True)
    made.audio = default_storage.save(f"{made.folder}/1-audio.wav", ContentFile(b"RIFF of one tenant"))
    made.save()
    return {"pk": made.pk}


def cover(owner: User) -> dict[str, Any]:
    made = baker.make(CoverJob, tenant=owner, status="succeeded", response_format="wav", input_kind="mix")
    for name in ("vocals", "instrumental", "converted", "result", "result_flac", "result_mp3"):
        stored = default_storage.save(f"{made.folder}/1-{name}", ContentFile(b"RIFF of one tenant"))
        setattr(made, name, stored)
    made.save()
    return {"pk": made.pk, "stem": "converted"}


def cover_link(owner: User) -> dict[str, Any]:
    job = CoverJob.objects.get(pk=cover(owner)["pk"])
    return {"pk": job.pk, "share_id": Share.make(job, 7).pk}


def synthesis_link(owner: User) -> dict[str, Any]:
    job = Synthesis.objects.get(pk=synthesis(owner)["pk"])
    return {"pk": job.pk, "share_id": Share.make(job, 7).pk}


def training(owner: User) -> dict[str, Any]:
    made = baker.make(Training, tenant=owner, status="failed", engine="gptsovits", name="Jane", voice_id=uuid.uuid4())
    stored = default_storage.save(f"{made.folder}/0-recording-0000", ContentFile(b"RIFF of one tenant"))
    baker.make(TrainingRecording, training=made, audio=stored, audio_bytes=18)
    return {"pk": made.pk}


def trained_model(owner: User) -> dict[str, Any]:
    made = baker.make(EngineModel, model_id=f"tuned-{uuid.uuid4().hex[:20]}", owner=owner, engine="gptsovits")
    stored = default_storage.save(f"{made.folder}/gpt.ckpt", ContentFile(b"weights of one tenant"))
    baker.make(WeightsFile, model=made, kind="gpt_weights", file=stored, sha256="0" * 64, bytes=21)
    return {"pk": made.model_id, "model_id": made.model_id, "kind": "gpt_weights"}


def key(owner: User) -> dict[str, Any]:
    return {"pk": ApiKey.objects.issue(owner, "another")[0].public_id}


@cache
def _flac() -> bytes:
    return audio.encode(speech_like(), 16_000, "flac")


def voice(owner: User) -> dict[str, Any]:
    made = baker.make(Voice, tenant=owner, language="en")
    made.reference = default_storage.save(f"{made.folder}/reference.flac", ContentFile(b"RIFF of one tenant"))
    made.save()
    # Audio, since what is left of a voice is decoded when a sample goes.
    flac = _flac()
    samples = [
        baker.make(
            VoiceSample, voice=made, quality=REPORT.as_json(), sample_rate=16_000, duration_seconds=4.0,
            audio=default_storage.save(f"{made.folder}/sample-{number}.flac", ContentFile(flac)),
        )
        for number in range(2)
    ]  # fmt: skip
    return {"pk": made.pk, "sample_id": samples[0].pk}


def lexicon(owner: User) -> dict[str, Any]:
    made = baker.make(Lexicon, tenant=owner)
    version = baker.make(LexiconVersion, pk=made.version_id, lexicon=made, entries=[{"word": "SQL", "say": "sequel"}])
    return {"pk": made.pk, "version": version.pk}


def alias(owner: User) -> dict[str, Any]:
    made = baker.make(VoiceAlias, tenant=owner, alias="alloy", voice_id=voice(owner)["pk"])
    return {"pk": made.voice_id, "alias": made.alias}


def recorded_consent(owner: User) -> dict[str, Any]:
    return {"pk": baker.make(RecordedConsent, tenant=owner).pk}


def delivery(owner: User) -> dict[str, Any]:
    return {"pk": baker.make(WebhookDelivery, tenant=owner, status="failed").pk}


def walk(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from walk(pattern, route)
        elif isinstance(pattern, URLPattern):
            yield route


ROUTES = sorted(set(walk(get_resolver())))


def path_of(route: str, values: dict[str, Any] | None = None) -> str:
    """A path that a route matches: with these values, else with ones that name nothing."""
    given = values or {}
    made = {"uuid": str(uuid.uuid4()), "int": "987654", "path": "987654", "str": "nothing", "slug": "nothing",
            "PathKey": "vcp_nothing"}  # fmt: skip
    route = re.sub(r"\^?\(\?P<\w+>([\w|]+)\)(/?)\$", lambda m: m[1].split("|")[0] + m[2], route)
    route = re.sub(r"\(\?P<\w+>\.\*\)\$", "nothing", route)
    return "/" + re.sub(
        r"<(?:(\w+):)?(\w+)>", lambda m: str(given[m[2]]) if m[2] in given else made[m[1] or "str"], route
    )
