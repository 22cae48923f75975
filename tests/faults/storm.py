"""A storm: many quick covers over a few workers while workers, Redis and PostgreSQL are killed under them.

    python -m tests.faults.storm [--jobs 200] [--workers 4] [--minutes 0] [--seed 1] [--keep FOLDER]

Starts servers of its own, submits the jobs of eight tenants, and provokes one fault after another until all jobs have
ended (and the minutes are over: then jobs are submitted as long as that). A trigger in PostgreSQL, which knows nothing
of the product, notes each end of a job. Prints the figures as JSON and exits with 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.servers import (
    ROOT,
    Postgres,
    Redis,
    Worker,
    end_cleanly_when_told,
    environment,
    processes_with,
    running,
)
from tests.support.waiting import until

QUICK = Path(__file__).with_name("quick.py")
TENANTS = 8
HEARTBEAT_SECONDS = 5
FAULT_SECONDS = (1.0, 3.0)  # between two faults
ROUNDS = 3  # of all kinds of faults, where no minutes are given: enough to hit many jobs, and CI's time is bounded
PAUSE_SECONDS = HEARTBEAT_SECONDS + 4.0

WITNESS = """
CREATE TABLE witness (id bigserial PRIMARY KEY, job uuid, status text, attempt int, at timestamptz DEFAULT now());
CREATE FUNCTION note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO witness (job, status, attempt) VALUES (NEW.id, NEW.status, NEW.attempt);
    RETURN NULL;
END $$;
CREATE TRIGGER note_end AFTER UPDATE ON covers_coverjob FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.status IN ('succeeded', 'failed', 'canceled'))
    EXECUTE FUNCTION note_end();
"""


class Storm:
    def __init__(self, folder: Path, workers: int, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.data = folder / "data"
        self.postgres = Postgres(folder)
        self.redis = Redis(folder)
        command = f"{{python_exec}} -I -S {QUICK} 0.2"
        self.environment = environment(
            self.data,
            DATABASE_URL=self.postgres.url(),
            REDIS_URL=self.redis.url(),
            WORKER_HEARTBEAT_TIMEOUT_SECONDS=str(HEARTBEAT_SECONDS),
            COVER_CONCURRENCY=str(workers),
            COVER_MAX_RUNNING="3",
            COVER_MAX_QUEUED="1000000",
            # A storm hits one job more often than any real one; each has to come through.
            COVER_MAX_ATTEMPTS="50",
            COVER_SEPARATE_CMD_TEMPLATE=f"{command} {{song_input}} {{vocal_output}} {{inst_output}}",
            COVER_FIND_VOICE="false",
            COVER_INFER_CMD_TEMPLATE=f"{command} {{input_vocal}} {{output_vocal}}",
        )
        self.faults: Counter[str] = Counter()
        self.workers: list[Worker | None] = [None] * workers
        self.paused: dict[int, float] = {}
        self.submitted = 0
        self.most_running = 0

    # --- the product ---

    def set_up(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute(WITNESS)

    def patiently(self, action: Callable[[], Any]) -> Any:
        """The database is away now and then, by our own doing."""
        from django.db import InterfaceError, OperationalError, connection

        for _ in range(100):
            try:
                return action()
            except (OperationalError, InterfaceError):
                connection.close()
                time.sleep(0.2)
        raise AssertionError("the database did not come back")

    def submit(self, count: int) -> None:
        from django.contrib.auth.models import User
        from django.core.files.base import ContentFile

        from covers.models import CoverJob
        from tests.support.audio import speech_like, wav_bytes

        time_ = np.arange(44_100) / 44_100
        song = wav_bytes(np.stack([0.3 * np.sin(2 * np.pi * hz * time_) for hz in (220, 330)], axis=1), 44_100)
        reference = wav_bytes(speech_like(), 16_000)

        def one(number: int) -> None:
            user, _ = User.objects.get_or_create(username=f"tenant-{number % TENANTS}")
            job = CoverJob(tenant=user, song_hash=f"{number:064x}", duration_seconds=1.0)
            storage = job.song.storage
            job.song = storage.save(f"{job.folder}/0-song", ContentFile(song))
            job.reference_voice = storage.save(f"{job.folder}/0-reference_voice", ContentFile(reference))
            with CoverJob.admission(user, 1_000_000):
                job.save(force_insert=True)

        for _ in range(count):
            # A commit whose answer was lost may leave one job more: what was submitted is counted at the end.
            self.patiently(lambda: one(self.submitted))
            self.submitted += 1

    def counts(self) -> Counter[str]:
        from covers.models import CoverJob

        return Counter(self.patiently(lambda: list(CoverJob.objects.values_list("status", flat=True))))

    # --- faults ---

    def start_worker(self, place: int) -> None:
        log = self.folder / f"worker-{place}.log"
        self.workers[place] = Worker({**os.environ, **self.environment}, log)

    def look_after_workers(self) -> None:
        """As a supervisor does: what has died is started again; who was paused goes on after a while."""
        for place, worker in enumerate(self.workers):
            if place in self.paused and time.monotonic() > self.paused[place]:
                del self.paused[place]
                if worker:
                    worker.signal_all(signal.SIGCONT)
            if worker is None or worker.process.poll() is not None:
                self.start_worker(place)

    def kill(self, which: str) -> None:
        worker = self.victim()
        if worker is None:
            return
        match which:
            case "both":
                worker.signal_all(signal.SIGKILL)
            case "worker":
                os.kill(worker.child(), signal.SIGKILL)
            case "main":
                worker.process.kill()
            case "stop":
                worker.process.terminate()
        self.faults[f"kill {which}" if which != "stop" else "stop a worker"] += 1

    def victim(self) -> Worker | None:
        """A worker that has a job now, if there is one: where it hurts."""
        from covers.models import CoverJob

        names = self.patiently(lambda: list(CoverJob.objects.filter(status="running").values_list("worker", flat=True)))
        busy = {int(name.split(":")[1]) for name in names if name}
        awake = [w for place, w in enumerate(self.workers) if w and place not in self.paused and w.child()]
        return self.random.choice([w for w in awake if w.child() in busy] or awake or [None])

    def pause(self) -> None:
        worker = self.victim()
        if worker and len(self.paused) < 2:
            worker.signal_all(signal.SIGSTOP)
            self.paused[self.workers.index(worker)] = time.monotonic() + PAUSE_SECONDS
            self.faults["pause a worker"] += 1

    def flush_redis(self) -> None:
        import redis

        client = redis.Redis.from_url(self.redis.url())
        client.flushall()
        client.close()
        self.faults["flush Redis"] += 1

    def restart(self, server: Postgres | Redis, number: int, name: str) -> None:
        server.stop(number)
        time.sleep(self.random.uniform(0, 1.5))
        server.start()
        self.faults[name] += 1

    def script(self) -> list[Callable[[], None]]:
        """One round of faults in random order: each kind comes in each."""
        faults = [
            *[lambda which=which: self.kill(which) for which in ("both", "both", "worker", "worker", "main", "stop")],
            self.pause,
            self.flush_redis,
            lambda: self.restart(self.redis, signal.SIGKILL, "kill Redis"),
            lambda: self.restart(self.postgres, signal.SIGINT, "restart PostgreSQL"),
            lambda: self.restart(self.postgres, signal.SIGQUIT, "crash PostgreSQL"),
        ]
        self.random.shuffle(faults)
        return faults

    # --- the run ---

    def run(self, jobs: int, minutes: float) -> dict[str, Any]:
        started = time.monotonic()
        with running(self.postgres, self.redis):
            try:
                self.set_up()
                self.submit(jobs)
                figures = self.blow(jobs, started + minutes * 60, started + minutes * 60 + 600)
                figures["stopped_in_time"] = self.stop_workers()
                figures |= self.remains()
            finally:
                for worker in self.workers:
                    if worker:
                        worker.signal_all(signal.SIGKILL)
                        worker.process.wait()
        return {"seconds": round(time.monotonic() - started, 1), **figures}

    def blow(self, jobs: int, until_time: float, give_up: float) -> dict[str, Any]:
        from django.db import connection

        began = time.monotonic()
        faults = self.script()
        rounds = ROUNDS if until_time <= began else math.inf
        next_fault = math.inf  # not before there is something to disturb
        while True:
            self.look_after_workers()
            counts = self.counts()
            self.most_running = max(self.most_running, counts["running"])
            if counts["running"] and next_fault == math.inf:
                next_fault = time.monotonic()
            alive = counts["queued"] + counts["running"]
            if time.monotonic() < until_time:
                self.submit(max(0, jobs // 2 - alive))
            elif alive == 0:
                break
            if time.monotonic() > give_up:
                break
            # The last jobs are left in peace: what is measured is whether they end, not when.
            if time.monotonic() > next_fault and rounds and alive > 2 * len(self.workers):
                faults.pop()()
                if not faults:
                    faults, rounds = self.script(), rounds - 1
                next_fault = time.monotonic() + self.random.uniform(*FAULT_SECONDS)
            time.sleep(0.2)
        connection.close()
        return {"storm_seconds": round(time.monotonic() - began, 1), "faults": dict(sorted(self.faults.items()))}

    def stop_workers(self) -> bool:
        for place, worker in enumerate(self.workers):
            if worker and place in self.paused:
                worker.signal_all(signal.SIGCONT)
        self.paused.clear()
        self.look_after_workers()
        # Scratch folders of killed workers are swept by those that live.
        scratch = self.data / "scratch"
        try:
            until(lambda: not list(scratch.glob("cover-*")), 15, "an empty scratch folder")
        except AssertionError as error:
            print(error, file=sys.stderr)
        stopped = [worker.stop() for worker in self.workers if worker]
        return all(stopped)

    def remains(self) -> dict[str, Any]:
        from django.db import connection

        from covers.models import CoverJob

        rows = list(CoverJob.objects.order_by("created_at"))
        with connection.cursor() as cursor:
            cursor.execute("SELECT job, count(*) FROM witness GROUP BY job")
            ends = dict(cursor.fetchall())
        time.sleep(1.0)
        stored = [path.relative_to(self.data / "media") for path in (self.data / "media").rglob("*") if path.is_file()]
        named = {str(getattr(row, name)) for row in rows for name in row.file_fields() if getattr(row, name)}
        return {
            "jobs": len(rows),
            "submitted": self.submitted,
            "ended": dict(Counter(row.status for row in rows)),
            "errors": dict(Counter(row.error for row in rows if row.error)),
            "never_ended": sum(ends.get(row.pk, 0) == 0 for row in rows),
            "ended_more_than_once": sum(ends.get(row.pk, 0) > 1 for row in rows),
            "without_result": sum(not (self.data / "media" / str(row.result)).is_file() for row in rows if row.result),
            "attempts": dict(sorted(Counter(row.attempt for row in rows).items())),
            "most_running": self.most_running,
            "orphan_processes": list(processes_with(f"{self.data}/scratch").values()),
            "worker_processes": [line for line in processes_with(str(self.data)).values() if "dramatiq" in line],
            "scratch_left": sorted(path.name for path in (self.data / "scratch").iterdir()),
            "unnamed_files": len([path for path in stored if str(path) not in named]),
        }


def wrong(figures: dict[str, Any]) -> list[str]:
    """What a run must not show."""
    found = [
        name
        for name in ("never_ended", "ended_more_than_once", "without_result", "orphan_processes", "worker_processes",
                     "scratch_left", "errors")
        if figures[name]
    ]  # fmt: skip
    if figures["jobs"] < figures["submitted"]:
        found.append("a job was lost")
    if figures["ended"] != {"succeeded": figures["jobs"]}:
        found.append("not every job succeeded")
    if not figures["stopped_in_time"]:
        found.append("a worker did not stop in time")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="an empty folder for data and logs, which are kept")
    options = parser.parse_args()
    end_cleanly_when_told()
    with tempfile.TemporaryDirectory(prefix="storm-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL runs as another user.
        figures = Storm(folder, options.workers, options.seed).run(options.jobs, options.minutes)
    figures["wrong"] = wrong(figures)
    print(json.dumps(figures, indent=1))
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
