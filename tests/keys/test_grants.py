"""No sequence of changes by keys gives anybody more than the keys of its beginning could do together.

Every change of `grants` is compared with a reference that knows no fields: it looks at each point (what is done, from
where, when) and asks how much of it each key may do there.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIRequestFactory

from tests.support.tenants import Tenant, change_key, make_key, rotate_key, with_key
from voiceproject.errors import PublicError
from voices.keys import grants
from voices.keys.models import KEY_LIMITS, ApiKey

pytestmark = pytest.mark.django_db

EXAMPLES = int(os.environ.get("GRANT_EXAMPLES", "150"))

SCOPES = ("synthesize", "covers", "keys")
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "2001:db8:1::/48")
ADDRESSES = ("10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "203.0.113.1", "2001:db8:1::1", "2001:db8:2::1", "::2")
NOW = timezone.now()
ENDS = tuple(NOW + timedelta(days=days) for days in (10, 20, 30))
MOMENTS = (NOW, *(NOW + timedelta(days=days) for days in (5, 15, 25, 35)))

Powers = tuple[float, ...]
Point = tuple[str, str, datetime, str]  # a scope, an address, a moment, the name of a limit
POINTS: tuple[Point, ...] = tuple(itertools.product(SCOPES, ADDRESSES, MOMENTS, KEY_LIMITS))


@cache
def opens(networks: tuple[str, ...], address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not networks or any(parsed in ipaddress.ip_network(network) for network in networks)


@cache
def everywhere(scopes: tuple[str, ...], networks: tuple[str, ...], end: datetime | None, *own: int | None) -> Powers:
    limits = dict(zip(KEY_LIMITS, own, strict=True))

    def at(scope: str, address: str, moment: datetime, limit: str) -> float:
        if scope not in scopes or not opens(networks, address) or (end is not None and end <= moment):
            return 0.0
        return math.inf if limits[limit] is None else float(limits[limit] or 0)

    return tuple(at(*point) for point in POINTS)


def powers(key: ApiKey) -> Powers:
    """How much the key may do at each point: 0 is nothing."""
    limits = (getattr(key, name) for name in KEY_LIMITS)
    return everywhere(tuple(key.scopes), tuple(key.allowed_networks), key.expires_at, *limits)


def together(keys: Iterable[ApiKey]) -> Powers:
    """Of one lineage the highest limit counts, since all that it does is compared with each; lineages add up."""
    lines: dict[Any, list[Powers]] = {}
    for key in keys:
        lines.setdefault(key.lineage, []).append(powers(key))
    highest = [tuple(map(max, zip(*of_line, strict=True))) for of_line in lines.values()]
    return tuple(map(sum, zip(*highest, strict=True)))


def is_part(key: ApiKey, of: ApiKey) -> bool:
    shared = key.lineage == of.lineage
    return all(
        mine <= its and (not mine or math.isinf(its) or shared)
        for mine, its in zip(powers(key), powers(of), strict=True)
    )


limits = st.sampled_from((None, 1, 2, 3))
FIELDS = {
    "scopes": st.lists(st.sampled_from(SCOPES), min_size=1, unique=True),
    "allowed_networks": st.one_of(st.just([]), st.lists(st.sampled_from(NETWORKS), max_size=3, unique=True)),
    "expires_at": st.sampled_from((None, *ENDS)),
    **dict.fromkeys(KEY_LIMITS, limits),
}
some_fields = st.fixed_dictionaries({}, optional=FIELDS)
beginnings = st.lists(
    st.fixed_dictionaries({}, optional=FIELDS | {"scopes": st.just(["keys", "covers"])}), min_size=1, max_size=3
)
steps = st.lists(
    st.tuples(st.sampled_from(("create", "update", "rotate")), st.integers(0, 9), st.integers(0, 9), some_fields,
              st.sampled_from((0, 3600))),
    min_size=1, max_size=8,
)  # fmt: skip


def run(kind: str, actor: grants.Actor, target: ApiKey, fields: dict[str, Any], overlap: int) -> ApiKey | None:
    """The key that is new or changed; None where something else than the grant is in the way."""
    try:
        if kind == "create":
            return grants.create(target.user, actor, name="made", **fields)[0]
        if kind == "update":
            return grants.update(target, actor, **fields)
        return grants.rotate(target, actor, overlap)[0]
    except PublicError as error:
        if error.code == "permission_denied":
            raise
        return None


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(beginning=beginnings, sequence=steps)
@mock.patch("django.utils.timezone.now", lambda: NOW)
def test_nothing_that_keys_do_with_keys_yields_more_than_they_had(
    beginning: list[dict[str, Any]], sequence: list[Any]
) -> None:
    user = User.objects.create(username=f"u{User.objects.count()}-{len(sequence)}")
    keys = [ApiKey.objects.issue(user, "first", **fields)[0] for fields in beginning]
    before = together(keys)
    request = APIRequestFactory().get("/")
    for kind, who, whom, fields, overlap in sequence:
        actor, target = keys[who % len(keys)], keys[whom % len(keys)]
        if "keys" not in actor.scopes or not actor.is_valid():
            continue
        was = ApiKey.objects.get(pk=target.pk)
        wanted = grants.inherited(grants.Actor(request, actor)) | fields
        try:
            made = run(kind, grants.Actor(request, actor), target, fields, overlap)
        except PublicError:
            # It was right to refuse: neither a part of the asking key nor less than there was.
            lineage = actor.lineage if kind == "create" else was.lineage
            values = {name: getattr(was, name) for name in FIELDS} | fields if kind == "update" else wanted
            given_ = was if kind == "rotate" else ApiKey(user=user, lineage=lineage, **values)
            assert not is_part(given_, actor), (kind, fields)
            assert kind != "update" or not is_part(given_, was), (kind, fields)
            continue
        if made is None:
            continue
        match kind:
            case "create":
                allowed = is_part(made, actor)
            case "update":
                allowed = is_part(made, actor) or is_part(made, was)
            case _:
                allowed = actor.pk == was.pk or is_part(was, actor)
        assert allowed, (kind, fields)
        keys = list(ApiKey.objects.filter(user=user).order_by("pk"))
        # Ended ones too: whoever had their secret may have used all of their share.
        for point, now, then in zip(POINTS, together(keys), before, strict=True):
            assert now <= then, (kind, fields, point)


# --- the same over HTTP, with the sequences that were found ---


def test_a_narrow_key_does_not_build_a_wide_one_out_of_an_older_one(tenant: Tenant) -> None:
    """All scopes for an hour from one network, and an older key that has no bounds but few scopes."""
    hour = timezone.now() + timedelta(hours=1)
    _, narrow = with_key(tenant, expires_at=hour, allowed_networks=["127.0.0.0/8"])
    older, _ = with_key(tenant, scopes=["keys"])
    assert change_key(narrow, older, scopes=["keys", "synthesize"]).status_code == 403
    assert change_key(narrow, older, scopes=["keys", "synthesize"], expires_at=hour.isoformat()).status_code == 403
    # What it could make itself, it may also make of the older key.
    whole = {"scopes": ["synthesize"], "expires_at": hour.isoformat(), "allowed_networks": ["127.0.0.1"]}
    assert change_key(narrow, older, **whole).status_code == 200
    older.refresh_from_db()
    assert (older.scopes, older.allowed_networks) == (["synthesize"], ["127.0.0.1"])


@pytest.mark.parametrize(
    ("field", "bound"),
    [("scopes", ["keys"]), ("expires_at", timezone.now() + timedelta(days=1)), ("allowed_networks", ["127.0.0.1"]),
     ("requests_per_minute", 5), ("max_concurrent_jobs", 1), ("monthly_audio_seconds", 3)],
)  # fmt: skip
def test_every_kind_of_lesser_key_may_take_and_may_not_give(tenant: Tenant, field: str, bound: Any) -> None:
    _, lesser = with_key(tenant, **{field: bound})
    older, _ = with_key(tenant, scopes=["keys", "voices"])
    assert change_key(lesser, older, scopes=["keys", "voices", "covers"]).status_code == 403
    assert rotate_key(lesser, older).status_code == 403
    assert make_key(lesser, **{field: [] if field == "allowed_networks" else None}).status_code in (400, 403)
    assert change_key(lesser, older, scopes=["voices"], name="less").status_code == 200
    assert change_key(lesser, older, scopes=["keys", "voices"]).status_code == 403
    older.refresh_from_db()
    assert (older.scopes, older.name, older.state) == (["voices"], "less", "valid")


def test_a_limited_key_gives_nothing_to_one_that_does_not_draw_on_its_limit(tenant: Tenant) -> None:
    _, limited = with_key(tenant, monthly_audio_seconds=3)
    other, _ = with_key(tenant, monthly_audio_seconds=3, scopes=["keys"])
    response = change_key(limited, other, scopes=["keys", "synthesize"])
    assert (response.status_code, response.json()["error"]) == (403, "permission_denied")
    assert rotate_key(limited, other).status_code == 403
    child = make_key(limited, scopes=["keys"]).json()["id"]
    assert change_key(limited, child, scopes=["keys", "synthesize"]).status_code == 200
    assert rotate_key(limited, child).status_code == 201
