"""An installation of the last release, on SQLite and on PostgreSQL, goes on with today's code.

What that release had left, with jobs that wait and one whose worker was killed, is in last_release/, whose make.py
makes it anew. It is upgraded and run as an operator would: `manage.py migrate`, then server and worker by the names and
with the settings that units and `.env` files of that time have.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import soundfile as sf
from django.conf import settings
from standardwebhooks import Webhook

from tests.fakes.receiver import Receiver
from tests.operations.last_release.make import sha256
from tests.operations.last_release.material import HERE, Material, commands, excerpt
from tests.support.missing import url_of
from tests.support.running.installation import Installation
from tests.support.waiting import until

DAY = timedelta(days=1)


class Upgraded:
    """The old installation under today's code; its server and its worker run."""

    def __init__(self, material: Material, new: Installation, receiver: Receiver) -> None:
        self.facts, self.new, self.receiver = material.facts, new, receiver
        self.call = new.call
        self.used_before: list[dict[str, Any]] = []

    def job(self, name: str) -> dict[str, Any]:
        """How the job of this name has ended, once it has."""
        path = "voice/syntheses" if "synthesis" in name else "cover/jobs"

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self.call("GET", f"/{path}/{self.facts[name]}").json()
            return found if found["status"] not in ("queued", "running") else None

        return until(ended, 120, f"an end of the job {name}")

    def webhook(self, webhook_id: str) -> dict[str, Any]:
        """The event that came with this id, signed by the tenant's secret."""

        def arrived() -> Any:
            found = [(headers, body) for _, headers, body in self.receiver.requests]
            return next(((h, body) for h, body in found if h["webhook-id"] == webhook_id), None)

        headers, body = until(arrived, 60, "the webhook")
        event: dict[str, Any] = Webhook(self.facts["webhook_secret"]).verify(body, headers)
        return event


def new_database() -> str:
    """A database of our own on the server that TEST_DATABASE_URL names: its URL."""
    server = url_of("TEST_DATABASE_URL")
    name = f"last_release_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


def drop_database(url: str) -> None:
    with psycopg.connect(os.environ["TEST_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def upgraded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    material, data = Material(request.param), tmp_path_factory.mktemp("last-release") / "data"
    data.mkdir()
    (data / "refused-words.txt").write_text("volcano\n")
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        environment = {
            "ENV_FILE": str(HERE / "settings.env"),
            "SECRET_KEY": material.facts["secret_key"],
            "TEXT_FILTER": "voiceproject.textfilter.words",
            "WEBHOOK_ALLOW_HTTP": "true",
            "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "WORKER_HOST": "new-host",
            **commands(Path(settings.BASE_DIR)),
        }
        url = f"sqlite:///{data / 'db.sqlite3'}"
        if request.param == "postgresql":
            url = environment["DATABASE_URL"] = new_database()
            stack.callback(drop_database, url)
        material.load(url, data, receiver.origin)
        new = Installation(Path(settings.BASE_DIR), data, **environment)
        new.manage("migrate", "--verbosity", "0")
        stack.enter_context(new.server())
        new.session.headers["X-API-Key"] = material.facts["key"]
        running = Upgraded(material, new, receiver)
        running.used_before = used(running)
        stack.enter_context(new.worker())
        yield running


def used(upgraded: Upgraded) -> list[dict[str, Any]]:
    """What the old work counts in the ledger, by operation."""
    today = datetime.now(UTC).date()
    items: list[dict[str, Any]] = upgraded.call(
        "GET", "/usage", params={"group_by": "operation", "from": str(today - DAY), "to": str(today)}
    ).json()["items"]
    return items


def test_nothing_is_left_to_migrate_and_every_check_passes(upgraded: Upgraded) -> None:
    calls = (  # One after the other in one process, which takes seconds to start.
        "from django.core.management import call_command as call;"
        "call('makemigrations', check_changes=True, dry_run=True);"
        "call('showmigrations', format='plan');"
        "call('check', databases=['default'])"
    )
    told = upgraded.new.manage("shell", "-c", calls)
    assert "No changes detected" in told and "[X]" in told and "[ ]" not in told
    assert "System check identified no issues" in told


def test_the_old_key_works_with_its_limits(upgraded: Upgraded) -> None:
    facts = upgraded.facts
    me = upgraded.call("GET", "/me").json()
    limits = facts["limits"]
    assert me["username"] == "alice"
    assert me["key"]["prefix"] == facts["key"][:11]
    assert me["limits"] == {
        "requests_per_minute": 500,  # the key's own, below the tenant's
        "max_running_jobs": limits["max_running"],
        "max_queued_jobs": limits["max_queued"],
        "max_concurrent_jobs": None,
        "monthly_audio_seconds": limits["monthly_audio_seconds"],
        "max_storage_bytes": limits["max_storage_bytes"],
    }
    keys = {key["name"]: key for key in upgraded.call("GET", "/keys").json()["results"]}
    assert keys["narrow"]["revoked_at"] is not None


def test_old_audio_is_downloaded_as_it_was_to_the_byte(upgraded: Upgraded) -> None:
    assert len(upgraded.facts["downloads"]) == 6
    for path, digest in upgraded.facts["downloads"].items():
        assert sha256(upgraded.call("GET", path).content) == digest, path


def test_a_part_of_old_speech_is_still_found_by_its_sound(upgraded: Upgraded) -> None:
    content = upgraded.call("GET", f"/voice/syntheses/{upgraded.facts['synthesis']}/audio").content
    found = upgraded.call("POST", "/provenance/verify", files={"file": ("part.wav", excerpt(content))}).json()
    assert (found["made_here"], found["how"], found["kind"]) == (True, "fingerprint", "synthesis")
    whole = upgraded.call("POST", "/provenance/verify", files={"file": ("whole.mp3", content)}).json()
    assert (whole["made_here"], whole["manifest"], whole["manifest_valid"]) == (True, "ours", True)


def test_the_old_voice_is_listed_and_speaks(upgraded: Upgraded) -> None:
    voice = upgraded.facts["voice"]
    [listed] = upgraded.call("GET", "/voice/voices").json()["results"]
    assert (listed["voice_id"], listed["name"], len(listed["samples"])) == (voice["id"], voice["name"], 1)
    form = {"text": "It still speaks.", "voice_id": voice["id"], "language": "en"}
    spoken = upgraded.call("POST", "/voice/synthesize", json=form)
    assert sf.info(io.BytesIO(spoken.content)).duration > 0.5


def test_what_waited_is_done_and_what_had_lost_its_worker_is_taken_over(upgraded: Upgraded) -> None:
    for name, attempts in (("queued", 1), ("queued_synthesis", 1), ("running", 2)):
        job = upgraded.job(name)
        assert (job["status"], job["error"], job["attempts"]) == ("succeeded", None, attempts), name
        link = job["links"]["audio" if name == "queued_synthesis" else "result"]
        assert sf.info(io.BytesIO(upgraded.call("GET", link).content)).duration >= 1.0


def test_a_request_that_is_sent_again_makes_nothing_a_second_time(upgraded: Upgraded) -> None:
    job = upgraded.new.data / "media" / "covers" / upgraded.facts["cover"]
    files = {"song": (job / "0-song").read_bytes(), "reference_voice": (job / "0-reference_voice").read_bytes()}
    sent = {"Idempotency-Key": upgraded.facts["idempotency_key"]}
    again = upgraded.call("POST", "/cover/jobs", files=files, headers=sent)
    assert (again.json()["job_id"], again.headers["Idempotency-Replayed"]) == (upgraded.facts["running"], "true")


def test_webhooks_are_signed_by_the_old_secret(upgraded: Upgraded) -> None:
    assert upgraded.call("GET", "/webhooks/secret").json()["secret"] == upgraded.facts["webhook_secret"]
    upgraded.job("queued")
    log = upgraded.call("GET", "/webhooks/deliveries", params={"job_id": upgraded.facts["queued"]}).json()
    [delivery] = log["results"]
    event = upgraded.webhook(delivery["webhook_id"])
    assert (event["type"], event["data"]["job_id"]) == ("cover.succeeded", upgraded.facts["queued"])
    # One that was sent by the last release is sent again as it was then.
    old = upgraded.facts["delivery"]
    upgraded.call("POST", f"/webhooks/deliveries/{old['delivery_id']}/redeliver")
    event = upgraded.webhook(old["webhook_id"])
    assert (event["type"], event["data"]["job_id"]) == ("cover.succeeded", upgraded.facts["cover"])


def test_the_ledger_counts_the_old_work_as_before_and_the_new_beside_it(upgraded: Upgraded) -> None:
    assert upgraded.used_before == upgraded.facts["usage"]
    for name in ("queued", "queued_synthesis", "running"):
        upgraded.job(name)
    requests = {item["operation"]: item["requests"] for item in used(upgraded)}
    assert requests["cover"] == 3
    assert requests["synthesis"] >= 2


def test_consents_and_the_audit_log_are_all_there(upgraded: Upgraded) -> None:
    packed = zipfile.ZipFile(io.BytesIO(upgraded.call("GET", "/me/export").content))
    rows = {name: json.loads(packed.read(name)) for name in packed.namelist() if name.endswith(".json")}
    statements = [consent["statement"] for consent in rows["consents.json"]]
    assert statements == [upgraded.facts["voice"]["consent"]] * 2
    actions = [entry["action"] for entry in rows["audit_log.json"]]
    assert actions.count("key.create") == 2
    assert actions.count("key.revoke") == 1


def test_the_operator_signs_in_and_sees_who_had_failed_to(upgraded: Upgraded) -> None:
    new, session = upgraded.new, upgraded.new.session
    login = f"{new.base}/admin/login/"
    session.get(login, timeout=30)
    form = {
        "username": "operator",
        "password": upgraded.facts["password"],
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
        "next": "/admin/voiceproject/auditentry/?q=signin.failed",
    }
    page = session.post(login, data=form, headers={"Referer": login}, timeout=30)
    session.cookies.clear()
    assert page.ok
    assert len(set(re.findall(r"/auditentry/\d+/change/", page.text))) == 1, page.text


def test_the_filter_of_texts_has_the_name_that_it_had(upgraded: Upgraded) -> None:
    form = {"text": "A volcano speaks.", "voice_id": upgraded.facts["voice"]["id"]}
    refused = upgraded.call("POST", "/voice/synthesize", (400, 422), json=form)
    assert refused.json()["error"] == "content_refused"
