"""What engines have computed of saved voices: a file for each reference, engine and language."""

from __future__ import annotations

import hashlib
import logging
import uuid
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, transaction

from voiceproject.media.storage import is_passing
from voices.library.models import EngineData, Voice

log = logging.getLogger(__name__)


def kept_data(voice_id: uuid.UUID | None, content_hash: str, transcript: str | None, language: str) -> KeptData | None:
    """The engine data for the voice of a waiting job. None: the job has no voice, or the voice was deleted.

    content_hash, transcript, language: of the reference that the job has kept.
    """
    voice = Voice.objects.filter(pk=voice_id).first() if voice_id else None
    return KeptData.of(voice, content_hash, transcript, language) if voice else None


def _kept(voice: Voice, content_hash: str, transcript: str | None, language: str = "auto") -> KeptData:
    return KeptData(
        voice.pk, voice.folder, content_hash, transcript, voice.language if language == "auto" else language
    )


class KeptData:
    """What engines have computed of a voice (`Kept`): a file each, found by reference and transcript."""

    def __init__(
        self, voice_id: uuid.UUID, folder: str, content_hash: str, transcript: str | None, language: str
    ) -> None:
        self._voice_id = voice_id
        self._folder = folder
        parts = "\0".join((content_hash, language, transcript or ""))
        self._key = hashlib.sha256(parts.encode()).hexdigest()

    @classmethod
    def of(cls, voice: Voice, content_hash: str, transcript: str | None, language: str = "auto") -> KeptData:
        """content_hash, transcript, language: of the reference that an engine gets of the voice."""
        return cls(voice.pk, voice.folder, content_hash, transcript, voice.language if language == "auto" else language)

    def load(self, engine: str, language: str) -> bytes | None:
        try:
            row = self._rows(engine, language).first()
            if row is None:
                return None
            with row.file.storage.open(str(row.file.name), "rb") as stored:
                data: bytes = stored.read()
            return data
        except FileNotFoundError:
            return None
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("what is kept of a voice cannot be read: %s", error)
            return None
        finally:
            _let_connection_go()

    def store(self, engine: str, language: str, data: bytes) -> None:
        name = ""
        try:
            name = default_storage.save(f"{self._folder}/{engine}-{language}-{uuid.uuid4().hex}.npz", ContentFile(data))
            with transaction.atomic():
                Voice.objects.select_for_update().get(pk=self._voice_id)
                old = self._rows(engine, language).first()
                EngineData.objects.update_or_create(
                    voice_id=self._voice_id, engine=engine, key=self._key, language=language,
                    defaults={"file": name, "bytes": len(data)},
                )  # fmt: skip
            if old is not None:
                default_storage.delete(str(old.file.name))
        except Exception as error:
            # The disk is full, the database is away, or the voice was deleted. The synthesis itself has not failed.
            log.warning("what was computed of a voice is not kept: %s", error)
            if name:
                self._discard(name)
        finally:
            _let_connection_go()

    def _rows(self, engine: str, language: str) -> Any:
        return EngineData.objects.filter(voice_id=self._voice_id, engine=engine, key=self._key, language=language)

    @staticmethod
    def _discard(name: str) -> None:
        try:
            default_storage.delete(name)
        except Exception as error:
            if not (is_passing(error) or isinstance(error, OSError)):
                raise
            log.warning("a file could not be deleted yet: %s", error, extra={"file": name})


def _let_connection_go() -> None:
    # An engine works long after it has read or written this.
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()


def forget_engine_data(voice: Voice) -> None:
    """Deletes what was computed of a voice whose reference, transcript or language has changed."""
    rows = list(EngineData.objects.filter(voice=voice))
    EngineData.objects.filter(pk__in=[row.pk for row in rows]).delete()
    for row in rows:
        row.file.storage.delete(str(row.file.name))
