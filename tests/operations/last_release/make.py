"""Makes this folder's material anew: what the last release leaves on a machine where it has worked.

    python -m tests.operations.last_release.make COMMIT [--postgresql postgres://user@host:port/database]

COMMIT is the last release, as git names it. Its own code runs, out of a folder of its own, with this interpreter: it
migrates an empty database, and its server and its worker make the rows. First on SQLite, then in a new database of the
PostgreSQL server, where one is named (its `pg_dump` has to be on the PATH). For the next release, run this with its
commit, look at what `git diff --stat` says, and commit it with the release.

It leaves for each database NAME.sql (the dump), NAME.json (what clients of that time knew and saw) and NAME.tar.xz
(the files that rows name), and settings.env with every setting that the release knew. All secrets in them were
made for this and belong to nobody.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from tests.fakes.receiver import Receiver
from tests.operations.last_release.material import HERE, commands, downloads, excerpt
from tests.support.audio import speech_like, wav_bytes
from tests.support.running.installation import Installation
from tests.support.waiting import until

ROOT = HERE.parents[2]
SECRET_KEY = "a key for the material of the last release, known to everybody"
PASSWORD = "known to everybody 1"
# Where a receiver listened. The test puts its own in the place of it.
RECEIVER_PORT = 59_181
LONG_HOURS = "1000"  # Nothing expires before it is looked at.
LIMITS = {"max_running": 3, "max_queued": 7, "requests_per_minute": 600, "monthly_audio_seconds": 7200,
          "max_storage_bytes": 100_000_000}  # fmt: skip
RATE = 8_000
TEXT = "It speaks as it did before, in the voice of Alice, and somebody may ask one day whether that was made here."


def song() -> bytes:
    """A second as a WAV, whose periods are alike to the bit, so that what is made of it packs well."""
    period = 0.4 * np.sin(2 * np.pi * np.arange(100) / 100)
    return wav_bytes(np.tile(period, 441).astype(np.float32), 44_100)


def installation(checkout: Path, data: Path, **environment: str) -> Installation:
    return Installation(
        checkout, data, SECRET_KEY=SECRET_KEY, WEBHOOK_ALLOW_HTTP="true", WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
        COVER_RESULT_TTL_HOURS=LONG_HOURS, SYNTHESIS_TTL_HOURS=LONG_HOURS, WORKER_HOST="old-host",
        **commands(checkout), **environment,
    )  # fmt: skip


def work(old: Installation) -> dict[str, Any]:
    """Makes the rows, as clients and operators would; what these then know."""
    old.manage("migrate", "--verbosity", "0")
    secret = old.manage("create_api_key", "alice", "--create-user", "--requests-per-minute", "500").strip()
    old.manage(
        "createsuperuser", "--noinput", "--username", "operator", "--email", "", DJANGO_SUPERUSER_PASSWORD=PASSWORD
    )
    limit = f"Tenant.objects.update_or_create(user=User.objects.get(username='alice'), defaults={LIMITS!r})"
    imports = "from django.contrib.auth.models import User; from voiceproject.models import Tenant"
    old.manage("shell", "-c", f"{imports}; {limit}")
    old.session.headers["X-API-Key"] = secret
    facts: dict[str, Any] = {"key": secret, "password": PASSWORD, "secret_key": SECRET_KEY, "limits": LIMITS}
    with Receiver(RECEIVER_PORT) as receiver, old.server():
        facts["receiver"] = receiver.origin
        facts["webhook_secret"] = old.call("GET", "/webhooks/secret").json()["secret"]
        narrow = old.call("POST", "/keys", json={"name": "narrow", "scopes": ["usage"]}).json()
        old.call("DELETE", f"/keys/{narrow['id']}", 204)
        page = f"{old.base}/account/signin"
        old.session.get(page, timeout=30)
        form = {"username": "operator", "password": "wrong", "csrfmiddlewaretoken": old.session.cookies["csrftoken"]}
        old.session.post(page, data=form, headers={"Referer": page}, timeout=30)
        old.session.cookies.clear()

        def sample(pitch: float) -> dict[str, Any]:
            return {"sample": ("sample.wav", wav_bytes(speech_like(3.2, RATE, pitch), RATE))}

        consent = "Alice agreed that her voice is used for this test."
        named = {"name": "Alice", "consent": consent}
        voice = old.call("POST", "/voice/voices", data=named, files=sample(120)).json()
        facts["voice"] = {"id": voice["voice_id"], **named}
        spoken = {"text": TEXT, "voice_id": voice["voice_id"], "language": "en"}
        made = old.call("POST", "/voice/synthesize", json={**spoken, "response_format": "mp3", "seed": 7})
        facts["synthesis"] = made.headers["X-Synthesis-ID"]
        # With a sample the voice loses what the engine had computed of it, which would be most of this folder.
        old.call("POST", f"/voice/voices/{voice['voice_id']}/samples", files=sample(130))
        old.call("DELETE", f"/voice/voices/{voice['voice_id']}/samples/{voice['samples'][0]['sample_id']}", 204)

        files = {"song": ("song.wav", song()), "reference_voice": ("voice.wav", sample(120)["sample"][1])}
        told = {"callback_url": f"{receiver.origin}/hook", "response_format": "flac"}
        with old.worker():
            cover = old.call("POST", "/cover/jobs", data=told, files=files).json()
            facts["cover"] = cover["job_id"]
            wait(old, f"/cover/jobs/{cover['job_id']}", "status", "succeeded")
            wait(old, "/webhooks/deliveries", "results", lambda found: found and found[0]["status"] == "delivered")
        facts["delivery"] = old.call("GET", "/webhooks/deliveries").json()["results"][0]
        found = old.call("POST", "/provenance/verify", files={"file": ("part.wav", excerpt(made.content))}).json()
        assert found["how"] == "fingerprint", found

        # Of this one the client has the key, but never had the answer.
        facts["idempotency_key"] = "sent again after the upgrade"
        stale = old.call(
            "POST", "/cover/jobs", files=files, headers={"Idempotency-Key": facts["idempotency_key"]}
        ).json()
        facts["running"] = stale["job_id"]
        with old.worker(**commands(old.checkout, "hang")) as kill:
            wait(old, f"/cover/jobs/{stale['job_id']}", "stage", "infer")
            kill()
        facts["queued"] = old.call("POST", "/cover/jobs", data=told, files=files).json()["job_id"]
        later = old.call("POST", "/voice/synthesize", json=spoken, headers={"Prefer": "respond-async"}).json()
        facts["queued_synthesis"] = later["job_id"]
        facts["usage"] = old.call("GET", "/usage?group_by=operation").json()["items"]
        facts["downloads"] = {path: sha256(old.call("GET", path).content) for path in downloads(facts)}
    return facts


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wait(old: Installation, path: str, field: str, wanted: Any) -> None:
    def there() -> bool:
        value = old.call("GET", path).json()[field]
        return bool(wanted(value)) if callable(wanted) else value == wanted

    until(there, 120, f"{field} of {path}")


# --- What is kept ---


def dump_sqlite(path: Path) -> str:
    database = sqlite3.connect(path)
    try:
        return "\n".join(database.iterdump()) + "\n"
    finally:
        database.close()


def dump_postgresql(url: str) -> str:
    command = ["pg_dump", "--inserts", "--no-owner", "--no-privileges", "--no-comments", "--dbname", url]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Without its headings, and without lines for psql alone.
    dumped = re.sub(r"^--\n(-- .*\n)+--\n\n", "", dumped, flags=re.MULTILINE)
    return re.sub(r"^\\(un)?restrict .*\n", "", dumped, flags=re.MULTILINE)


def keep(name: str, old: Installation, dump: str, facts: dict[str, Any]) -> None:
    (HERE / f"{name}.sql").write_text(dump, encoding="utf-8")
    (HERE / f"{name}.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with tarfile.open(HERE / f"{name}.tar.xz", "w:xz", preset=9) as kept:
        for path in sorted((old.data / "media").rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                member = tarfile.TarInfo(str(path.relative_to(old.data)))
                member.size, member.mode = len(content), 0o600
                kept.addfile(member, io.BytesIO(content))


def settings_of(checkout: Path) -> str:
    """The lines of its .env.example that set something."""
    lines = (checkout / ".env.example").read_text(encoding="utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if re.match(r"[A-Z0-9_]+=", line))


def make(commit: str, postgresql: str | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="last-release-"))
    try:
        checkout = folder / "checkout"
        archive = folder / "checkout.tar"
        subprocess.run(["git", "archive", "-o", str(archive), commit], cwd=ROOT, check=True)
        with tarfile.open(archive) as packed:
            packed.extractall(checkout, filter="data")
        name = subprocess.run(["git", "rev-parse", commit], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        about = {"commit": name.strip()}
        (HERE / "settings.env").write_text(settings_of(checkout), encoding="utf-8")

        old = installation(checkout, folder / "sqlite")
        facts = about | work(old) | {"made_at": datetime.now(UTC).isoformat(timespec="seconds")}
        keep("sqlite", old, dump_sqlite(old.data / "db.sqlite3"), facts)
        if postgresql:
            server, _, _ = postgresql.rpartition("/")
            with psycopg.connect(postgresql, autocommit=True) as connection:
                connection.execute("DROP DATABASE IF EXISTS last_release_material")
                connection.execute("CREATE DATABASE last_release_material")
            url = f"{server}/last_release_material"
            old = installation(checkout, folder / "postgresql", DATABASE_URL=url)
            facts = about | work(old) | {"made_at": datetime.now(UTC).isoformat(timespec="seconds")}
            keep("postgresql", old, dump_postgresql(url), facts)
            with psycopg.connect(postgresql, autocommit=True) as connection:
                connection.execute("DROP DATABASE last_release_material WITH (FORCE)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--postgresql")
    arguments = parser.parse_args()
    make(arguments.commit, arguments.postgresql)
