"""Who speaks, by whatever name a client has for it: an id, a saved voice's name, an alias, a preset.

Many clients offer a fixed list of names, or a field for one; a clone must be found by them too.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F

from voiceproject.errors import PublicError
from voiceproject.jobs.status import revoked
from voiceproject.tenants import audit
from voices.engines import configured
from voices.library import selection
from voices.library.models import MAX_VOICE_NAME, Voice, VoiceAlias
from voices.library.premade import PREMADE

MAX_ALIASES = 200

# The names that OpenAI's clients know, and which of the engine's own voices speaks for each.
PRESETS = {
    "alloy": "female", "ash": "male", "ballad": "male", "cedar": "male", "coral": "female", "echo": "male",
    "fable": "male", "marin": "female", "nova": "female", "onyx": "male", "sage": "female", "shimmer": "female",
    "verse": "male",
}  # fmt: skip


def presets() -> list[str]:
    """The names of preset voices; empty if the engine has no voices of its own."""
    own = getattr(configured.get_engine(), "presets", ())
    return [name for name, preset in PRESETS.items() if preset in own]


def find(tenant: Any, name: str) -> str | Voice:
    """A saved voice of the tenant, to be used, or the engine's own voice (a value of PRESETS).

    name: in this order an id (also as `voice_<hex>`), an alias of the tenant, a saved voice's name in any case (the
    newest that has it), a preset, an id of PREMADE. Raises PublicError not_found and revoked.
    """
    voice_id = _id_of(name)
    if voice_id is not None:
        return selection.find(tenant, voice_id)
    found = _saved(tenant, name)
    if found is not None:
        return found
    preset = PRESETS.get(name.strip().lower()) or (PREMADE[name][1] if name in PREMADE else None)
    if preset is None:
        offered = ", ".join(presets()) or "none"
        raise _unknown(f"There is no such voice. Take a saved voice's id or name, an alias, or a preset: {offered}.")
    if preset not in getattr(configured.get_engine(), "presets", ()):
        raise _unknown("The engine of this server has no preset voices; save a voice and send its id.")
    return preset


def find_saved(tenant: Any, name: str) -> Voice:
    """As `find`, for what needs a saved voice. Raises PublicError validation_error where it is a preset."""
    found = find(tenant, name)
    if isinstance(found, Voice):
        return found
    message = "A preset voice cannot be taken here: send the id, the name or an alias of a saved voice."
    raise PublicError("validation_error", f"voice: {message}", {"voice": [message]})


def _id_of(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name.strip().removeprefix("voice_"))
    except ValueError:
        return None


def _unknown(message: str) -> PublicError:
    return PublicError("not_found", message, {"voice_id": [message]})


def _saved(tenant: Any, name: str) -> str | Voice | None:
    name = name.strip()
    if not name or len(name) > MAX_VOICE_NAME:
        return None
    alias = VoiceAlias.objects.for_tenant(tenant).filter(alias=name.lower()).select_related("voice").first()
    if alias is not None and alias.voice is None:
        own = getattr(configured.get_engine(), "presets", ())
        return PRESETS[alias.preset] if PRESETS[alias.preset] in own else None
    named = Voice.objects.for_tenant(tenant).filter(name__iexact=name)
    voice = alias.voice if alias else named.order_by(F("taken_down_at").asc(nulls_first=True), "-created_at").first()
    if voice is not None and voice.taken_down_at is not None:
        raise revoked()
    return voice


# --- Aliases ---


def aliases(tenant: Any) -> Any:
    """The tenant's aliases, in the order of their names."""
    return VoiceAlias.objects.for_tenant(tenant).select_related("voice")


def give_alias(request: Any, alias: str, name: str) -> VoiceAlias:
    """Makes a name mean a voice of the tenant's, or a preset, from now on. name: as `find` takes it.

    Raises PublicError not_found, revoked, validation_error and conflict (too many).
    """
    tenant, alias = request.user, alias.strip().lower()
    if _id_of(alias) is not None:
        message = "An id cannot be an alias."
        raise PublicError("validation_error", f"alias: {message}", {"alias": [message]})
    preset = name.strip().lower()
    voice = None
    if preset not in PRESETS or _saved(tenant, name) is not None:
        found = find(tenant, name)
        voice = found if isinstance(found, Voice) else None
        preset = "" if voice else next(known for known, own in PRESETS.items() if own == found)
    values = {"voice": voice, "preset": preset}
    try:
        with transaction.atomic():
            own = VoiceAlias.objects.for_tenant(tenant)
            if not own.filter(alias=alias).exists() and own.count() >= MAX_ALIASES:
                raise PublicError("conflict", f"There are {MAX_ALIASES} aliases; delete one first.")
            row, _ = VoiceAlias.objects.update_or_create(tenant=tenant, alias=alias, defaults=values)
            told = {"alias": alias, "voice_id": str(voice.pk) if voice else None, "preset": preset or None}
            audit.record("voice.alias", voice, request=request, target_type="voice", details=told)
    except IntegrityError:  # Its voice was deleted this moment.
        raise _unknown("There is no such voice, or it is not yours.") from None
    return row


def remove_alias(request: Any, alias: str) -> bool:
    """Whether there was one."""
    with transaction.atomic():
        count, _ = VoiceAlias.objects.for_tenant(request.user).filter(alias=alias.strip().lower()).delete()
        if count:
            details = {"alias": alias.strip().lower()}
            audit.record("voice.alias_removed", request=request, target_type="voice", details=details)
    return bool(count)
