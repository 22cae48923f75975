"""Links to what was made: who may follow one, for how long, how often, and what is told there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.support.tenants import Tenant
from voiceproject.shares.models import MAX_LINKS, Share
from voiceproject.tenants.models import AuditEntry
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
RIFF = b"RIFF of a cover"


@pytest.fixture
def cover(tenant: Tenant) -> CoverJob:
    job = CoverJob.objects.create(tenant=tenant.user, status="succeeded", title="Snow <i>in</i> June", attempt=1)
    stored = default_storage.save(f"{job.folder}/1-result.wav", ContentFile(RIFF))
    CoverJob.objects.filter(pk=job.pk).update(result=stored)
    job.refresh_from_db()
    return job


def links(job: CoverJob) -> str:
    return f"/api/v1/cover/jobs/{job.pk}/shares"


def path_of(share: dict[str, Any]) -> str:
    return str(share["url"]).removeprefix("http://testserver")


def made(api: APIClient, job: CoverJob, **fields: Any) -> dict[str, Any]:
    answer = api.post(links(job), fields, format="json")
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


def test_who_follows_a_link_is_told_in_the_language_of_their_browser(api: APIClient, cover: CoverJob) -> None:
    path = path_of(made(api, cover))
    page = Client(headers={"Accept-Language": "zh-CN,zh;q=0.9"}).get(path)
    assert '<html lang="zh-hans">' in page.content.decode() and "Made by a machine" not in page.content.decode()
    assert page["Content-Language"] == "zh-hans" and "Accept-Language" in page["Vary"]
    assert "Made by a machine" in Client(headers={"Accept-Language": "de"}).get(path).content.decode()


def test_who_has_the_link_hears_it_and_is_told_that_a_machine_made_it(api: APIClient, cover: CoverJob) -> None:
    share = made(api, cover)
    left = timezone.datetime.fromisoformat(share["expires_at"]) - timezone.now()
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)
    page = Client().get(path_of(share))
    text = page.content.decode()
    assert page.status_code == 200
    assert "Snow &lt;i&gt;in&lt;/i&gt; June" in text and "Made by a machine" in text
    assert cover.tenant.get_username() not in text and str(cover.pk) not in text
    assert (page["X-Robots-Tag"], page["Referrer-Policy"]) == ("noindex, nofollow", "no-referrer")
    assert "no-store" in page["Cache-Control"]
    heard = Client().get(path_of(share) + "/audio", headers={"Range": "bytes=0-3"})
    assert (heard.status_code, b"".join(heard)) == (206, b"RIFF")
    assert heard["Content-Disposition"] == 'attachment; filename="Snow _i_in__i_ June.wav"'
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {"share.make"}


def test_a_synthesis_is_passed_on_too(tenant: Tenant, api: APIClient) -> None:
    job = Synthesis.objects.create(tenant=tenant.user, text="Hello.", status="succeeded", response_format="mp3")
    stored = default_storage.save(f"{job.folder}/1-audio.mp3", ContentFile(b"mp3 of a synthesis"))
    Synthesis.objects.filter(pk=job.pk).update(audio=stored)
    share = api.post(f"/api/v1/voice/syntheses/{job.pk}/shares", {"days": 1}, format="json").json()
    heard = Client().get(path_of(share) + "/audio")
    assert (heard["Content-Type"], b"".join(heard)) == ("audio/mpeg", b"mp3 of a synthesis")
    assert "a text spoken in a cloned voice" in Client().get(path_of(share)).content.decode()


def gone(share: dict[str, Any]) -> bool:
    page, audio = Client().get(path_of(share)), Client().get(path_of(share) + "/audio")
    if page.status_code == 404:
        assert audio.status_code == 404
        assert "There is nothing to hear here" in page.content.decode()
        return True
    assert (page.status_code, audio.status_code) == (200, 200)
    audio.close()
    return False


@pytest.mark.parametrize(
    "how", ["revoked", "expired", "deleted", "taken down", "files expired", "tenant blocked", "turned off"]
)
def test_a_link_ends(how: str, api: APIClient, cover: CoverJob, settings: Any) -> None:
    share = made(api, cover)
    assert not gone(share)
    if how == "revoked":
        assert api.delete(f"{links(cover)}/{share['share_id']}").status_code == 204
        assert api.delete(f"{links(cover)}/{share['share_id']}").status_code == 204
        assert api.get(links(cover)).json() == {"shares": []}
    elif how == "expired":
        Share.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif how == "deleted":
        assert api.delete(f"/api/v1/cover/jobs/{cover.pk}").status_code == 204
        assert not Share.objects.exists()
    elif how == "taken down":
        cover.revoke()
    elif how == "files expired":
        CoverJob.objects.update(files_expired=True)
    elif how == "tenant blocked":
        cover.tenant.is_active = False
        cover.tenant.save()
    else:
        settings.SHARING = False
        refused = api.post(links(cover))
        assert (refused.status_code, refused.json()["error"]) == (503, "not_configured")
    assert gone(share)


def test_no_token_but_a_signed_one_is_looked_up(api: APIClient, cover: CoverJob, settings: Any) -> None:
    share = made(api, cover)
    token = path_of(share).removeprefix("/s/")
    own = Share.objects.get()
    for wrong in (own.pk.hex, str(own.pk), f"{own.pk.hex}.", token[:-1], token + "x", token.swapcase(), "x.y", "."):
        assert Client().get(f"/s/{wrong}").status_code == 404, wrong
    settings.SECRET_KEY = "another one, which has signed nothing of this"
    assert Client().get(f"/s/{token}").status_code == 404


def test_a_link_needs_something_to_hear(tenant: Tenant, other: Tenant, api: APIClient, cover: CoverJob) -> None:
    running = CoverJob.objects.create(tenant=tenant.user, status="running")
    assert api.post(links(running)).json()["error"] == "job_not_ready"
    for days in (0, 31, "x"):
        assert api.post(links(cover), {"days": days}, format="json").status_code == 400
    share = made(api, cover)
    assert other.client.get(links(cover)).status_code == 404
    assert other.client.delete(f"{links(cover)}/{share['share_id']}").status_code == 404
    for _ in range(MAX_LINKS - 1):
        made(api, cover)
    assert api.post(links(cover)).json()["error"] == "conflict"
    assert len(api.get(links(cover)).json()["shares"]) == MAX_LINKS


def test_who_asks_too_often_is_told_to_wait(api: APIClient, cover: CoverJob, settings: Any) -> None:
    settings.SHARE_REQUESTS_PER_MINUTE = 3
    share = made(api, cover)
    for _ in range(3):
        assert Client().get(path_of(share)).status_code == 200
    page, audio = Client().get(path_of(share)), Client().get(path_of(share) + "/audio")
    assert (page.status_code, audio.status_code) == (429, 429)
    assert 1 <= int(page["Retry-After"]) <= 60
    assert audio.json()["error"] == "rate_limited"
    assert Client().get(path_of(share), REMOTE_ADDR="192.0.2.7").status_code == 200
