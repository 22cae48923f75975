"""The audio of a row for staff: its files with byte ranges, and how loud each is over its length."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path, reverse

from voiceproject.commands.scratch import scratch
from voiceproject.console.base import LogAdmin
from voiceproject.errors import PublicError
from voiceproject.media import memory, storage
from voiceproject.media.uploads import Bounds, opened
from voiceproject.web.api import file_response
from voiceproject.web.errors import json_response

# Uploads were checked when they came in; here the browser only has to be told what it plays.
_MAGIC = (
    (0, b"RIFF", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (4, b"ftyp", "audio/mp4"),
    (0, b"\x1aE\xdf\xa3", "audio/webm"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
)
WAVEFORM_BARS = 240
_waveform_lock = threading.Lock()  # A page asks for six at once; one at a time leaves the machine to its work.


def _content_type(head: bytes) -> str:
    return next((type_ for place, magic, type_ in _MAGIC if head[place:].startswith(magic)), "audio/mpeg")


class AudioAdmin(LogAdmin):
    """Rows whose audio files staff may hear, by their session."""

    players: Mapping[str, Any] = {}  # The label of each file field that can be played, in order.

    def audio_of(self, row: Model) -> list[dict[str, Any]]:
        """The label and the address of each audio file that there is."""
        return [
            {"label": label, "url": reverse(f"admin:{self._url_name}", args=[row.pk, name])}
            for name, label in self.players.items()
            if getattr(row, name)
        ]

    @property
    def _url_name(self) -> str:
        return f"{self.model._meta.app_label}_{self.model._meta.model_name}_file"

    def get_urls(self) -> list[Any]:
        return [
            path("<uuid:pk>/files/<str:name>", self.admin_site.admin_view(self.serve_file), name=self._url_name),
            path(
                "<uuid:pk>/files/<str:name>/waveform",
                self.admin_site.admin_view(self.serve_waveform),
                name=f"{self._url_name}_waveform",
            ),
            *super().get_urls(),
        ]

    def _file(self, request: HttpRequest, pk: Any, name: str) -> tuple[Model, Any]:
        job = self.model.objects.filter(pk=pk).first()
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        if job is None or name not in self.players or not getattr(job, name):
            raise Http404
        return job, getattr(job, name)

    def serve_file(self, request: HttpRequest, pk: Any, name: str) -> HttpResponseBase:
        job, stored = self._file(request, pk, name)
        try:
            content_type = _content_type(b"".join(storage.read_blocks(stored.storage, stored.name, 0, 64)))
        except FileNotFoundError:
            raise Http404 from None
        if request.headers.get("Range", "bytes=0-").startswith("bytes=0-"):
            self.act(request, "listen", job, file=name)  # once, and not for each part that a player asks for
        try:
            return file_response(request, stored, content_type=content_type, filename=f"{pk}-{name}")
        except PublicError as error:
            return json_response(error)

    def serve_waveform(self, request: HttpRequest, pk: Any, name: str) -> HttpResponseBase:
        _job, stored = self._file(request, pk, name)
        try:
            with _waveform_lock, scratch(settings.UPLOAD_DIR, f"waveform-{uuid.uuid4()}") as folder:
                storage.fetch(stored.storage, stored.name, folder / "audio")
                with memory.claim(memory.to_decode(folder / "audio", 0, 0)):
                    svg = waveform(folder / "audio")
        except (FileNotFoundError, PublicError):
            raise Http404 from None
        # The name of a stored file holds the attempt; its content never changes.
        return HttpResponse(svg, content_type="image/svg+xml", headers={"Cache-Control": "private, max-age=3600"})


def waveform(file: Any) -> str:
    """An SVG of how loud an audio file is over its length, as bars; read in blocks. Raises PublicError."""
    longest = max(settings.COVER_MAX_DURATION_SECONDS, settings.SYNTHESIS_ASYNC_TIMEOUT_SECONDS)
    peaks: list[float] = []
    with opened(file, Bounds("audio", 0.0, float(longest))) as source:
        step = max(1, source.sample_rate // 20)
        rest = np.zeros(0, np.float32)
        for block in source.blocks:
            loud = np.abs(block).max(axis=1) if block.ndim > 1 else np.abs(block)
            rest = np.concatenate([rest, loud])
            whole = len(rest) // step * step
            peaks += rest[:whole].reshape(-1, step).max(axis=1).tolist()
            rest = rest[whole:]
        if len(rest):
            peaks.append(float(rest.max()))
    places = np.array_split(np.array(peaks), min(WAVEFORM_BARS, len(peaks)))
    top = max(max(peaks), 1e-6)
    heights = [max(1.0, 48 * float(part.max()) / top) for part in places]
    width = WAVEFORM_BARS * 3 / len(heights)
    bars = "".join(
        f'<rect x="{number * width:.2f}" y="{(48 - height) / 2:.1f}" width="{width * 0.67:.2f}" height="{height:.1f}"/>'
        for number, height in enumerate(heights)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WAVEFORM_BARS * 3} 48" preserveAspectRatio="none">'
        f"{bars}</svg>"
    )
