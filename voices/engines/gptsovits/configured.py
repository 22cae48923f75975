"""The engine as the product runs it: by its settings, and with the leases of its database."""

from __future__ import annotations

from typing import Any, Self

from voiceproject.leases.lease import Leases
from voices.engines.gptsovits.engine import GptSovitsEngine


class ConfiguredGptSovits(GptSovitsEngine):
    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        return cls(
            settings.SOVITS_BASE_URLS,
            timeout_seconds=settings.SOVITS_TIMEOUT,
            reference_dir=settings.SOVITS_REFERENCE_DIR,
            reference_dir_on_server=settings.SOVITS_REFERENCE_DIR_ON_SERVER,
            queue_seconds=settings.SOVITS_QUEUE_SECONDS,
            max_waiting=settings.SOVITS_MAX_WAITING,
            lease_factory=Leases,
            protocol=settings.SOVITS_PROTOCOL,
            token=settings.SOVITS_TOKEN,
            pinned=settings.SOVITS_PINNED_MODELS,
        )
