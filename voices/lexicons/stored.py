"""Lexicons as they are kept: how one comes, changes and ends, and which of them count for a text.

Each change of entries makes a new version, which is never written again. A synthesis keeps the entries that its text
has in it, so that it can be made again whatever happens to the lexicon.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from django.db import transaction
from django.utils import timezone

from voiceproject.errors import PublicError
from voiceproject.prepared import Select, Slot
from voiceproject.tenants import audit, usage
from voices.lexicons.entries import rows
from voices.lexicons.models import Lexicon, LexiconVersion
from voices.text import lexicon as text_lexicon
from voices.text import reading
from voices.text.lexicon import Entry

MAX_LEXICONS = 100  # of one tenant
KEPT_VERSIONS = 10
COMPILED = 16  # lexicons that are kept ready in memory, of 5 MB at most

Named = tuple[uuid.UUID, uuid.UUID | None]  # a lexicon, and one of its versions if not the newest

_default = Select(
    Lexicon.objects.filter(tenant=Slot("tenant", Lexicon), is_default=True).values_list("pk", "version_id")
)
_own = Select(
    Lexicon.objects.filter(tenant=Slot("tenant", Lexicon), pk=Slot("pk", Lexicon, "id")).values_list("pk", "version_id")
)


# --- what counts ---


def for_text(text: str, tenant: Any, named: Iterable[Named] = (), voice_lexicon: uuid.UUID | None = None) -> Any:
    """What a text has in it of the lexicons that count, as a voices.text.lexicon.Lexicon. Raises as `counting` and
    `found_in`."""
    return found_in(text, counting(tenant, named, voice_lexicon))


def counting(tenant: Any, named: Iterable[Named] = (), voice_lexicon: uuid.UUID | None = None) -> Iterable[uuid.UUID]:
    """Versions of the lexicons that count: those that a request names come first, then its voice's, then the tenant's
    default. Raises PublicError not_found for one that is not the tenant's."""
    versions = [_version(tenant, lexicon, version) for lexicon, version in named]
    if voice_lexicon is not None:
        versions += [version for _, version in _own(tenant=tenant.pk, pk=voice_lexicon)]
    versions += [version for _, version in _default(tenant=tenant.pk)]
    return dict.fromkeys(versions)


def found_in(text: str, versions: Iterable[uuid.UUID]) -> Any:
    """The entries that a text has in it, the first version's first. Raises PublicError validation_error for markup."""
    found = [compiled for version in versions if (compiled := _compiled(version)) is not None]
    return reading.occurring(text, found)


def _version(tenant: Any, lexicon: uuid.UUID, version: uuid.UUID | None) -> uuid.UUID:
    newest = next((newest for _, newest in _own(tenant=tenant.pk, pk=lexicon)), None)
    if newest is None:
        raise not_found()
    if version is not None and version != newest:
        if not LexiconVersion.objects.filter(pk=version, lexicon=lexicon).exists():
            raise not_found("There is no such version, or it is too old and gone.")
        return version
    return uuid.UUID(str(newest))


@lru_cache(maxsize=COMPILED)
def _compile(version: uuid.UUID) -> text_lexicon.Lexicon:
    """Raises LexiconVersion.DoesNotExist."""
    found = LexiconVersion.objects.get(pk=version)
    return text_lexicon.Lexicon(in_order(entries_of(found)))


def _compiled(version: uuid.UUID) -> text_lexicon.Lexicon | None:
    try:
        return _compile(version)
    except LexiconVersion.DoesNotExist:
        return None  # It was changed or deleted this moment.


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Entries of one lexicon, those that are more particular first."""
    return sorted(entries, key=lambda entry: (not entry.language, not entry.case_sensitive))


def entries_of(version: LexiconVersion) -> list[Entry]:
    """Each in the lexicon's language where it names none."""
    language = "" if version.language == "auto" else version.language
    return [Entry(**{"language": language, **row}) for row in version.entries]


def newest(lexicon: Lexicon) -> LexiconVersion:
    return LexiconVersion.objects.get(pk=lexicon.version_id)


# --- how they come, change and end ---


def find(user: Any, pk: Any, field: str = "lexicon_id") -> Lexicon:
    """The tenant's lexicon. Raises PublicError not_found, also for a stranger's."""
    try:
        lexicon = Lexicon.objects.for_tenant(user).filter(pk=uuid.UUID(str(pk))).first()
    except ValueError:
        lexicon = None
    if lexicon is None:
        raise not_found(field=field)
    return lexicon


def not_found(message: str = "There is no such lexicon, or it is not yours.", field: str = "lexicon_id") -> PublicError:
    return PublicError("not_found", message, {field: [message]})


def create(request: Any, entries: Sequence[Entry], **fields: Any) -> Lexicon:
    """A new lexicon of the request's tenant. fields: name, description, language, is_default.

    Raises PublicError conflict where there are too many, quota_exceeded for their bytes.
    """
    tenant = request.user
    with transaction.atomic():
        usage.check_storage(tenant, _bytes(rows(entries)))
        if Lexicon.objects.for_tenant(tenant).count() >= MAX_LEXICONS:
            raise PublicError("conflict", f"You have {MAX_LEXICONS} lexicons, which is all; delete one first.")
        if fields.get("is_default"):
            _no_default(tenant)
        lexicon = Lexicon(tenant=tenant, version_id=uuid.uuid4(), **fields)
        lexicon.entries_count = len(entries)
        lexicon.save(force_insert=True)
        _add_version(lexicon, entries, 1)
        audit.record("lexicon.create", lexicon, request=request, details={"entries": len(entries)})
    return lexicon


def change(lexicon: Lexicon, request: Any, entries: Sequence[Entry] | None = None, **fields: Any) -> Lexicon:
    """The lexicon with these fields, and with these entries in a new version. Raises as `create`."""
    with transaction.atomic():
        current = Lexicon.objects.select_for_update().get(pk=lexicon.pk)
        if entries is None and fields.get("language", current.language) != current.language:
            entries = [Entry(**row) for row in newest(current).entries]
        if fields.get("is_default") and not current.is_default:
            _no_default(current.tenant)
        for name, value in fields.items():
            setattr(current, name, value)
        if entries is not None:
            usage.check_storage(current.tenant, _bytes(rows(entries)))
            current.version_id, current.entries_count = uuid.uuid4(), len(entries)
            _add_version(current, entries, newest_number(current) + 1)
            old = current.versions.values_list("pk", flat=True)[KEPT_VERSIONS:]
            LexiconVersion.objects.filter(pk__in=list(old)).delete()
        current.updated_at = timezone.now()
        current.save()
        changed = sorted([*fields, *(["entries"] if entries is not None else [])])
        audit.record("lexicon.change", current, request=request, details={"changed": changed})
    return current


def newest_number(lexicon: Lexicon) -> int:
    return lexicon.versions.values_list("number", flat=True).first() or 0


def delete(lexicon: Lexicon, request: Any) -> None:
    """With all versions. Raises PublicError conflict while a saved voice speaks by it."""
    with transaction.atomic():
        voices = list(lexicon.voices.values_list("pk", flat=True)[:10])
        if voices:
            message = "Saved voices speak by this lexicon: give them another, or none (lexicon_id null), first."
            raise PublicError("conflict", message, {"voices": [str(pk) for pk in voices]})
        audit.record("lexicon.delete", lexicon, request=request)
        lexicon.delete()


def _no_default(tenant: Any) -> None:
    Lexicon.objects.for_tenant(tenant).filter(is_default=True).update(is_default=False, updated_at=timezone.now())


def _add_version(lexicon: Lexicon, entries: Sequence[Entry], number: int) -> None:
    kept = rows(entries)
    LexiconVersion.objects.create(
        pk=lexicon.version_id,
        lexicon=lexicon,
        number=number,
        language=lexicon.language,
        entries=kept,
        bytes=_bytes(kept),
    )


def _bytes(kept: list[dict[str, Any]]) -> int:
    return len(json.dumps(kept, ensure_ascii=False).encode())
