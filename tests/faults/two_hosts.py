"""Two hosts as network namespaces, with folders of their own, that share servers over two cables (veth pairs).

    python -m tests.faults.two_hosts          (as root, on Linux)

A job is begun on host-a, whose cable is then pulled while its conversion runs; host-b, started meanwhile, is to finish
it. Host-a's command has to end although nobody can tell it anything; then the cable is plugged in again. Prints what
was seen as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.servers import (
    ROOT,
    Bucket,
    Postgres,
    Redis,
    Worker,
    end_cleanly_when_told,
    environment,
    processes_with,
    running,
)
from tests.faults.storm import WITNESS
from tests.support.waiting import until

QUICK = Path(__file__).with_name("quick.py")
HEARTBEAT_SECONDS = 5


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)


class Host:
    """A network namespace, the cable to it, and the disk of its own."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.namespace = f"faults-{os.getpid()}-{number}"
        self.cable = f"ft{os.getpid() % 100_000}-{number}"
        self.subnet = f"10.213.{os.getpid() % 120 * 2 + number}"
        self.data = folder / name
        self.data.mkdir()
        self.worker: Worker | None = None

    def plug_in(self) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("address", "add", f"{self.subnet}.1/24", "dev", self.cable)
        ip("link", "set", self.cable, "up")
        inside = ("-n", self.namespace)
        ip(*inside, "address", "add", f"{self.subnet}.2/24", "dev", "eth0")
        ip(*inside, "link", "set", "eth0", "up")
        ip(*inside, "link", "set", "lo", "up")

    def pull(self) -> None:
        ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        ip("link", "set", self.cable, "up")

    def remove(self) -> None:
        if self.worker:
            self.worker.signal_all(signal.SIGKILL)
            self.worker.process.wait()
        ip("link", "delete", self.cable, check=False)
        ip("netns", "delete", self.namespace, check=False)

    def start_worker(self, shared: dict[str, Any], convert_seconds: float) -> None:
        command = f"{{python_exec}} -I -S {QUICK}"
        own = environment(
            self.data,
            DATABASE_URL=shared["postgres"].url(f"{self.subnet}.1"),
            REDIS_URL=shared["redis"].url(f"{self.subnet}.1"),
            STORAGE_URL=shared["bucket"].url(f"{self.subnet}.1"),
            WORKER_HOST=self.name,
            WORKER_HEARTBEAT_TIMEOUT_SECONDS=str(HEARTBEAT_SECONDS),
            COVER_SEPARATE_CMD_TEMPLATE=f"{command} 0.2 {{song_input}} {{vocal_output}} {{inst_output}}",
            COVER_FIND_VOICE="false",
            COVER_INFER_CMD_TEMPLATE=f"{command} {convert_seconds} {{input_vocal}} {{output_vocal}}",
            **Bucket.keys,
        )
        prefix = ("ip", "netns", "exec", self.namespace)
        self.worker = Worker(own, self.data / "worker.log", prefix)


def run(folder: Path, hosts: list[Host], shared: dict[str, Any]) -> dict[str, Any]:
    first, second = hosts
    os.environ.clear()
    os.environ.update(
        environment(
            folder / "web",
            DATABASE_URL=shared["postgres"].url(),
            REDIS_URL=shared["redis"].url(),
            STORAGE_URL=shared["bucket"].url(),
            WORKER_HEARTBEAT_TIMEOUT_SECONDS=str(HEARTBEAT_SECONDS),
            **Bucket.keys,
        )
    )
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.files.base import ContentFile
    from django.core.management import call_command
    from django.db import connection

    from covers.models import CoverJob
    from tests.support.audio import speech_like, wav_bytes

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(WITNESS)
    user = User.objects.create(username="alice")
    job = CoverJob(tenant=user, song_hash="0" * 64, duration_seconds=1.0)
    time_ = np.arange(44_100) / 44_100
    song = np.stack([0.3 * np.sin(2 * np.pi * hz * time_) for hz in (220, 330)], axis=1)
    job.song = job.song.storage.save(f"{job.folder}/0-song", ContentFile(wav_bytes(song, 44_100)))
    reference = ContentFile(wav_bytes(speech_like(), 16_000))
    job.reference_voice = job.song.storage.save(f"{job.folder}/0-reference_voice", reference)
    with CoverJob.admission(user, 10):
        job.save(force_insert=True)

    def row() -> Any:
        return CoverJob.objects.get(pk=job.pk)

    first.start_worker(shared, convert_seconds=600)
    until(lambda: row().stage == "infer" and bool(processes_with(f"{first.data}/scratch/cover")), 60, "a conversion")
    begun = row()
    separated = [first.name] if begun.vocals else []
    second.start_worker(shared, convert_seconds=0.2)
    until(lambda: "worker started" in (second.data / "worker.log").read_text(), 60, "the second worker")
    first.pull()
    pulled = time.monotonic()
    ended: list[float] = []

    def command_ended() -> bool:
        if not ended and not processes_with(f"{first.data}/scratch/cover"):
            ended.append(time.monotonic() - pulled)
        return bool(ended)

    until(lambda: command_ended() and row().status == "succeeded", 90, "the end on the other host")
    last = row()
    if str(last.vocals) != str(begun.vocals):
        separated.append(second.name)
    first.mend()

    def swept() -> bool:
        return not any(list((host.data / "scratch").glob("cover-*")) for host in hosts)

    until(swept, 60, "empty scratch folders")
    # Host-a is back, and looks: it must find nothing to do, and nothing to end.
    seen_at = last.finished_at
    from voiceproject.jobs.models import WorkerHost

    until(lambda: WorkerHost.objects.get(name=first.name).seen_at > seen_at, 60, "the first host's return")
    last = row()
    with connection.cursor() as cursor:
        cursor.execute("SELECT job FROM witness")
        ends = Counter(str(job_id) for (job_id,) in cursor.fetchall())
    return {
        "first": {"host": begun.host, "attempt": begun.attempt, "stage": begun.stage},
        "last": {"status": last.status, "host": last.host, "attempt": last.attempt, "ends": ends[str(job.pk)]},
        "separated_on": separated,
        "command_of_the_first_ended_after_seconds": round(ended[0], 1),
        "cut_off_limit_seconds": 2 * HEARTBEAT_SECONDS,
        "scratch_left": {h.name: sorted(p.name for p in (h.data / "scratch").iterdir()) for h in hosts},
    }


def main() -> int:
    end_cleanly_when_told()
    with tempfile.TemporaryDirectory(prefix="two-hosts-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        everywhere = "0.0.0.0"
        shared = {
            "postgres": Postgres(folder, everywhere, "10.213.0.0/16"),
            "redis": Redis(folder, everywhere),
            "bucket": Bucket(folder, everywhere),
        }
        hosts = [Host("host-a", 0, folder), Host("host-b", 1, folder)]
        with running(*shared.values()):
            try:
                for host in hosts:
                    host.plug_in()
                seen = run(folder, hosts, shared)
            except BaseException:
                for host in hosts:
                    log = host.data / "worker.log"
                    print(host.name, log.read_text()[-2000:] if log.exists() else "no log", file=sys.stderr)
                raise
            finally:
                for host in hosts:
                    host.remove()
    print(json.dumps(seen, indent=1))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
