"""Consents: who states that a speaker agreed, what counts as a statement, and its record."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from voiceproject.telemetry.logging import current
from voiceproject.tenants import audit
from voices.library.models import Consent, Voice, VoiceSample

# A statement that says something: letters, where one of a script that needs fewer of them counts thrice.
MIN_STATEMENT_LETTERS, MIN_DIFFERENT_LETTERS = 15, 5


@dataclass(frozen=True)
class Provider:
    """Who adds a voice, as the record of consent names them."""

    tenant: Any
    key_prefix: str
    address: str


def provider(request: Any) -> Provider:
    return Provider(request.user, str(getattr(request.auth, "prefix", "")), audit.client_address(request))


def is_statement(text: str) -> bool:
    """Whether a text can state that a speaker agreed; `yes`, `true` and `n/a` cannot."""
    letters = [char for char in text.casefold() if char.isalpha()]
    weight = sum(3 if "\u3040" <= char < "\ud800" else 1 for char in letters)
    return weight >= MIN_STATEMENT_LETTERS and len(set(letters)) >= MIN_DIFFERENT_LETTERS


def record_consent(who: Provider, voice: Voice, sample: VoiceSample, statement: str) -> None:
    """Keeps, for good, that the speaker of a sample agreed."""
    Consent.objects.create(
        tenant=who.tenant,
        tenant_name=str(who.tenant.get_username())[:150],
        key_prefix=who.key_prefix,
        address=who.address[:64],
        request_id=current("request_id"),
        statement=unicodedata.normalize("NFC", statement),
        voice_id=voice.pk,
        voice_name=voice.name,
        sample_id=sample.pk,
        sample_hash=sample.uploaded_hash,
    )
