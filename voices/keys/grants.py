"""Every change of a key: by another key over the API, by its owner on its own page, by an operator. One way through.

A change holds the lock of the tenant's row: those that race see each other's outcome, and so does the audit log, in
whose transaction it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_noop as _  # for the pages, which translate it

from voiceproject.errors import PublicError
from voiceproject.tenants import audit
from voiceproject.tenants.models import Tenant
from voiceproject.web.client_ip import is_part, is_within, overlap, parse_network
from voices.keys.models import KEY_LIMITS, ApiKey

# That a key of another kind than `header` may have: such a secret stands in logs, or is none.
KEYLESS_SCOPES = ["synthesize"]
# The most addresses that a key may stand for: a key for everybody would be a key for every other tenant's clients too.
MAX_ADDRESS_BITS = {4: 16, 6: 80}
FIELDS = ("name", "scopes", "expires_at", "allowed_networks", *KEY_LIMITS)
MAX_VALID_KEYS = 500
MAX_OVERLAP_SECONDS = 30 * 24 * 3600
# A key that ends sooner is not counted on where a tenant gives up another one: there has to be time to notice.
LASTING = timedelta(days=1)


@dataclass(frozen=True)
class Actor:
    """Who changes a tenant's keys.

    request: Django's or REST framework's, for the audit log; None for a command. key: the key that asks, which grants
    nothing but what it has itself and locks nobody out. None: a person who has signed in, an operator, who may do both,
    since they come in without any key; a leaked last key has to end at once.
    """

    request: Any = None
    key: ApiKey | None = None


def inherited(actor: Actor) -> dict[str, Any]:
    """What a new key gets where nothing is said: what the key that makes it has."""
    return {name: getattr(actor.key, name) for name in FIELDS if name != "name"} if actor.key else {}


def create(user: User, actor: Actor, **fields: Any) -> tuple[ApiKey, str]:
    """The new key and its secret, which is not kept anywhere. fields: of FIELDS, and perhaps a public_id.

    Raises PublicError: permission_denied where the asking key does not have what it would grant, conflict where the
    tenant has too many keys, or one of this public_id was made before.
    """
    with _locked(user, actor) as actor:
        values = inherited(actor) | fields
        if values.get("kind", ApiKey.Kind.HEADER) != ApiKey.Kind.HEADER and "scopes" not in fields:
            values["scopes"] = KEYLESS_SCOPES
        if actor.key is not None and actor.key.is_limited:
            values["lineage"] = actor.key.lineage
        _check_grant(actor, ApiKey(**values))
        _check_expiry(values.get("expires_at"))
        check_kind(ApiKey(user=user, **values))
        _check_count(user)
        if "public_id" in values and ApiKey.objects.filter(public_id=values["public_id"]).exists():
            raise PublicError("conflict", _("This key has been made already, and its secret was shown then."))
        key, secret = ApiKey.objects.issue(user, **values)
        _record(actor, "key.create", key, {name: _shown(getattr(key, name)) for name in (*FIELDS, "kind")})
    return key, secret


def update(key: ApiKey, actor: Actor, **changes: Any) -> ApiKey:
    """Changes some of FIELDS. Raises PublicError: permission_denied, conflict (see the guards), revoked."""
    with _locked(key.user, actor) as actor:
        key = _fresh(key)
        before = {name: getattr(key, name) for name in FIELDS}
        changes = {name: value for name, value in changes.items() if value != before[name]}
        if not changes:
            return key
        if key.replaced_by_id is not None and "expires_at" in changes:
            raise PublicError("conflict", _("This key has been replaced, and ends when that was said to."))
        if "expires_at" in changes:
            _check_expiry(changes["expires_at"])
        changed = copy(key)
        for name, value in changes.items():
            setattr(changed, name, value)
        _check_grant(actor, changed, before=key)
        check_kind(changed)
        _check_lock_out(key, actor, changes)
        ApiKey.objects.filter(pk=key.pk).update(**changes)
        shown = {name: [_shown(before[name]), _shown(value)] for name, value in changes.items()}
        _record(actor, "key.update", changed, shown)
    return changed


def rotate(key: ApiKey, actor: Actor, overlap_seconds: int = 0) -> tuple[ApiKey, str]:
    """A new key in the place of this one, with all its bounds, and its secret. The old one ends after the overlap.

    Raises PublicError: permission_denied where the asking key does not have what the rotated one has (its secret would
    hand that over), conflict for a key that has been replaced before or stands in the environment, revoked.
    """
    with _locked(key.user, actor) as actor:
        key = _fresh(key)
        if key.from_environment:
            raise PublicError("conflict", _("This key stands in the server's settings (API_KEY); it is changed there."))
        if key.replaced_by_id is not None:
            raise PublicError("conflict", _("This key has been replaced already; rotate the one that took its place."))
        if not key.is_valid():
            raise PublicError("conflict", _("This key has expired; give it another expiry first, or make a new one."))
        values = {name: getattr(key, name) for name in (*FIELDS, "kind", "chosen_model", "chosen_voice")}
        if key.kind == ApiKey.Kind.ADDRESS:
            raise PublicError("conflict", _("This key has no secret that could be replaced."))
        if actor.key is None or actor.key.pk != key.pk:
            _check_grant(actor, key)
        _check_count(key.user)
        fresh, secret = ApiKey.objects.issue(key.user, **values, lineage=key.lineage)
        now = timezone.now()
        key.replaced_by = fresh
        if overlap_seconds:
            end = now + timedelta(seconds=overlap_seconds)
            key.expires_at = min(end, key.expires_at or end)
        else:
            key.revoked_at = now
        key.save(update_fields=["replaced_by", "expires_at", "revoked_at"])
        details = {"replaced_by": fresh.prefix, "overlap_seconds": overlap_seconds}
        _record(actor, "key.rotate", key, details)
    return fresh, secret


def revoke(key: ApiKey, actor: Actor) -> bool:
    """Final. False where it was revoked before. Raises PublicError conflict for the last key that manages keys."""
    with _locked(key.user, actor) as actor:
        key.refresh_from_db()
        if key.revoked_at is not None:
            return False
        _check_lock_out(key, actor, {"revoked_at": timezone.now()})
        key.revoke()
        _record(actor, "key.revoke", key, {})
    return True


# --- guards, all of them under the tenant's lock ---


@contextmanager
def _locked(user: User, actor: Actor) -> Iterator[Actor]:
    """Holds the tenant's row; the actor with its key as it is now, which may have been revoked while it waited."""
    Tenant.objects.get_or_create(user=user)
    with transaction.atomic():
        if Tenant.objects.select_for_update().get(user=user).erase_requested_at is not None:
            raise PublicError("conflict", _("This account is being erased."))
        if actor.key is not None:
            current = ApiKey.objects.get(pk=actor.key.pk)
            if not current.is_valid():
                raise PublicError("invalid_api_key", "This API key is not valid.")
            if "keys" not in current.scopes:
                raise PublicError("permission_denied", "This key lacks the scope keys.", {"scope": "keys"})
            actor = Actor(actor.request, current)
        yield actor


def _fresh(key: ApiKey) -> ApiKey:
    key.refresh_from_db()
    if key.revoked_at is not None:
        raise PublicError("revoked", _("This key has been revoked, and that is final. Make a new one."))
    return key


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= timezone.now():
        message = "Must be in the future. To end a key now, revoke it."
        raise PublicError("validation_error", f"expires_at: {message}", {"expires_at": [message]})


def check_kind(key: ApiKey) -> None:
    """Raises PublicError for a key without a secret in a header that may do more than speak, or that stands for
    addresses that it should not: those of many, and of others' keys."""
    if key.kind == ApiKey.Kind.HEADER:
        return
    if list(key.scopes) != KEYLESS_SCOPES:
        message = f"A key of the kind {key.kind} may only synthesize; the default leaves nothing to say here."
        raise _invalid("scopes", message)
    if key.kind != ApiKey.Kind.ADDRESS:
        return
    if not settings.GPTSOVITS_ADDRESS_KEYS:
        message = "This server takes no addresses for keys; the operator may allow it (GPTSOVITS_ADDRESS_KEYS)."
        raise _invalid("kind", message)
    if not key.allowed_networks:
        raise _invalid("allowed_networks", _("Name the addresses or networks that need no key."))
    for text in key.allowed_networks:
        network = parse_network(text)
        if network.max_prefixlen - network.prefixlen > MAX_ADDRESS_BITS[network.version]:
            raise _invalid("allowed_networks", f"{text} is too wide: take /16 or narrower, of IPv6 /48.")
    others = ApiKey.objects.filter(_valid(), kind=ApiKey.Kind.ADDRESS).exclude(pk=key.pk)
    for other in others.select_for_update():
        if any(overlap(text, other.allowed_networks) for text in key.allowed_networks):
            message = _("Another key stands for some of these addresses already.")
            raise PublicError("conflict", message, {"field": "allowed_networks"})


def _invalid(field: str, message: str) -> PublicError:
    return PublicError("validation_error", f"{field}: {message}", {field: [message]})


def _check_count(user: User) -> None:
    if ApiKey.objects.filter(_valid(), user=user).count() >= MAX_VALID_KEYS:
        message = f"You have {MAX_VALID_KEYS} keys; revoke some that are not used any more."
        raise PublicError("conflict", message, {"limit": MAX_VALID_KEYS})


def _check_grant(actor: Actor, given: ApiKey, before: ApiKey | None = None) -> None:
    """Raises PublicError permission_denied where `given` lies neither within the asking key nor within `before`."""
    if actor.key is None:
        return
    excess = _excess(given, actor.key)
    if excess is not None and (before is None or _excess(given, before) is not None):
        raise excess


def _excess(key: ApiKey, bounds: ApiKey) -> PublicError | None:
    """What `key` may do and `bounds` may not, as the error that says so; None where all of it is a part of that."""
    lacking = [scope for scope in key.scopes if scope not in bounds.scopes]
    if lacking:
        message = f"This key lacks the scope {lacking[0]}, so it cannot grant it."
        return PublicError("permission_denied", message, {"scope": lacking[0]})
    if bounds.expires_at is not None and _exceeds(key.expires_at, bounds.expires_at):
        end = bounds.expires_at.isoformat()
        return _beyond("expires_at", f"This key ends {end}; it cannot grant more.", end)
    own = bounds.allowed_networks
    wide = [network for network in key.allowed_networks if not is_part(network, own)] if own else []
    if own and (wide or not key.allowed_networks):
        where = wide[0] if wide else "everywhere"
        message = f"This key may not be used from {where}; it cannot grant that."
        return _beyond("allowed_networks", message, own)
    for name in KEY_LIMITS:
        limit = getattr(bounds, name)
        if _exceeds(getattr(key, name), limit):
            return _beyond(name, f"This key has {name} {limit}; it cannot grant more.", limit)
        if limit is not None and key.lineage != bounds.lineage:
            message = f"This key has {name} {limit}, and the other one does not draw on that; it cannot grant more."
            return _beyond(name, message, limit)
    return None


def _exceeds(value: Any, bound: Any) -> bool:
    """None is no bound."""
    return bound is not None and (value is None or value > bound)


def _beyond(field: str, message: str, bound: Any) -> PublicError:
    return PublicError("permission_denied", message, {"field": field, "limit": bound})


def _check_lock_out(key: ApiKey, actor: Actor, changes: dict[str, Any]) -> None:
    """What takes something from a key that manages keys leaves another one that does, usable from where this is asked.

    And for good: one that ends within LASTING, or that has been replaced, is not counted on, unless it lasts as long as
    this one would have.
    """
    if actor.key is None or "keys" not in key.scopes or not key.is_valid() or not _is_in_use(key):
        return
    address = audit.client_address(actor.request)
    locks_out = (
        "revoked_at" in changes
        or "keys" not in changes.get("scopes", key.scopes)
        or ("expires_at" in changes and _exceeds(key.expires_at, changes["expires_at"]))
        or not _opens_from(address, changes.get("allowed_networks", []))
    )
    if not locks_out:
        return
    until = timezone.now() + LASTING
    if key.expires_at is not None:
        until = min(until, key.expires_at)
    lasting = Q(expires_at=None) | Q(expires_at__gte=until)
    others = ApiKey.objects.filter(_valid(), lasting, user=key.user_id, replaced_by=None).exclude(pk=key.pk)
    if not any(
        "keys" in other.scopes and _opens_from(address, other.allowed_networks) and _is_in_use(other)
        for other in others
    ):
        raise PublicError(
            "conflict",
            "This is the last key that can manage your keys from where you are, and you would be locked out. Make "
            "another one with the scope keys first.",
        )


def _opens_from(address: str, networks: list[str]) -> bool:
    return not networks or is_within(address, networks)


def _valid() -> Q:
    return Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=timezone.now()))


def _is_in_use(key: ApiKey) -> bool:
    """The environment's key opens anything only while it stands there."""
    if not key.from_environment:
        return True
    return bool(settings.API_KEY) and ApiKey.identity(settings.API_KEY)["key_hash"] == key.key_hash


def _record(actor: Actor, action: str, key: ApiKey, details: dict[str, Any]) -> None:
    audit.record(action, key, request=actor.request, details=details)


def _shown(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
