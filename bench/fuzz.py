"""Damaged audio files through the upload path, many thousands of them: no crash, no hang, no 5xx, memory flat.

    python -m bench.fuzz [--files 20000] [--first 0] [--workers 2]

Each file is made of its number (mutated_audio.py) from a good one of every format that is taken, some of them
with a C2PA manifest, and sent to a synthesis as its reference, to a cover as its song, or to verification, in turns.
Requests go through all of Django but the socket, in worker processes that are watched: one that dies, or says nothing
for 150 s (the decoder's own deadline is 120 s), is a failure that is told with its file's number, and another goes on
behind it. The engine is a stand-in; decoders, decoder processes, database and files are real. Memory is a worker's
resident set, told after every 1,000 files and judged from the 6,000th on: until then the decoded references that a
process keeps (voices/references.py) fill their 64 MB. Exit status 1 where anything failed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HANG_SECONDS = 150
MEASURE_FILES = 1000
WARM_FILES = 6000
MAX_GROWTH_MB = 10
REFUSALS = ("invalid_audio", "reference_too_short", "reference_too_long")


def resident_mb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


class Answer:
    """Of the product to one request by way of WSGI. Django's test client is not what memory is measured through: it
    keeps three objects of each request for good."""

    def __init__(self, application: Any, request: Any) -> None:
        self.status = 0
        body = application(request.environ, self._start)
        try:
            self.content = b"".join(body)
        finally:
            body.close()

    def _start(self, status: str, headers: list[tuple[str, str]], error: Any = None) -> None:
        self.status = int(status.split()[0])


def work(numbers: range) -> None:
    """Sends the files of these numbers, and prints a line of JSON for each."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from django.core.files.uploadedfile import SimpleUploadedFile
    from rest_framework.test import APIRequestFactory

    from covers.models import CoverJob
    from tests.fakes.engine import FakeEngine
    from tests.support.audio import speech_like, wav_bytes
    from tests.support.recordings.mutated_audio import mutated
    from voiceproject.wsgi import application
    from voices.engines import configured
    from voices.keys.models import ApiKey
    from voices.speech.models import Synthesis

    engine = FakeEngine()
    configured.load_engine = lambda: engine  # type: ignore[assignment,return-value]
    user, _ = User.objects.get_or_create(username="fuzz")
    _, secret = ApiKey.objects.issue(user, "fuzz")
    requests = APIRequestFactory()
    reference = wav_bytes(speech_like(), 16_000)

    def file(content: bytes) -> SimpleUploadedFile:
        return SimpleUploadedFile("found.bin", content, "application/octet-stream")

    def post(path: str, form: dict[str, Any]) -> Answer:
        return Answer(application, requests.post(path, form, headers={"X-API-Key": secret}))

    for done, number in enumerate(numbers):
        format, content = mutated(number)
        print(json.dumps({"sent": number}), flush=True)
        if number % 3 == 0:
            answer = post("/api/v1/voice/synthesize", {"text": "Hello", "reference_audio": file(content)})
        elif number % 3 == 1:
            answer = post("/api/v1/cover/jobs", {"song": file(content), "reference_voice": file(reference)})
        else:
            answer = post("/api/v1/provenance/verify", {"file": file(content)})
        told: dict[str, Any] = {"number": number, "format": format, "status": answer.status}
        refused = answer.status == 400 and json.loads(answer.content)["error"] in REFUSALS
        if answer.status not in (200, 202) and not refused:
            told["wrong"] = answer.content.decode(errors="replace")[:300]
        engine.requests.clear()
        if done % 20 == 0:
            for job in [*CoverJob.objects.all(), *Synthesis.objects.all()]:
                job.remove()
        if (done + 1) % MEASURE_FILES == 0:
            told["mb"] = resident_mb()
        print(json.dumps(told), flush=True)


class Worker:
    """A process that sends its share of the numbers; started again behind a file that it did not survive."""

    def __init__(self, numbers: range, folder: Path) -> None:
        self.numbers, self.folder = numbers, folder
        self.memory: list[int] = []
        self.start()

    def start(self) -> None:
        self.sent = self.numbers.start
        self.memory = []
        self.heard_at = time.monotonic()
        self.errors = (self.folder / "stderr").open("ab")
        environment = {**os.environ, "DATA_DIR": str(self.folder), "LOG_LEVEL": "ERROR", "ENV_FILE": os.devnull}
        environment["ALLOWED_HOSTS"] = "testserver"
        arguments = [str(part) for part in (self.numbers.start, self.numbers.stop, self.numbers.step)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.fuzz", "--work", *arguments],
            env={**environment, "DJANGO_SETTINGS_MODULE": "voiceproject.settings"},
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )


def watch(workers: list[Worker]) -> tuple[collections.Counter[str], list[str]]:
    """Until all are done: how many answers of each format had each status, and what went wrong."""
    answers: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    rest = dict.fromkeys(workers, b"")
    started = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select(5):
                worker = key.data
                data = os.read(key.fd, 65_536)
                worker.heard_at = time.monotonic()
                *lines, rest[worker] = (rest[worker] + data).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    if "sent" in told:
                        worker.sent = told["sent"]
                        continue
                    answers[f"{told['format']}: {told['status']}"] += 1
                    if answers.total() % 1000 == 0:
                        print(f"{answers.total()} files in {time.monotonic() - started:.0f} s", flush=True)
                    if "wrong" in told:
                        failures.append(f"file {told['number']}: {told['status']} {told['wrong']}")
                        print(failures[-1], flush=True)
                    if "mb" in told:
                        worker.memory.append(told["mb"])
                        print(
                            f"{told['mb']} MB after {len(worker.memory) * MEASURE_FILES} files of a worker", flush=True
                        )
                if data:
                    continue
                selector.unregister(key.fileobj)
                if worker.process.wait():
                    failures.append(f"file {worker.sent}: the process ended with {worker.process.returncode}")
                    worker.numbers = range(worker.sent + worker.numbers.step, worker.numbers.stop, worker.numbers.step)
                    rest[worker] = b""
                    worker.start()
                    selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            for worker in workers:
                if worker.process.poll() is None and time.monotonic() - worker.heard_at > HANG_SECONDS:
                    failures.append(f"file {worker.sent}: no answer in {HANG_SECONDS} s")
                    worker.process.kill()
    for worker in workers:
        memory = worker.memory
        print(f"memory of a worker after every {MEASURE_FILES} files, MB: {memory}")
        warm = memory[WARM_FILES // MEASURE_FILES - 1 :]
        if len(warm) < 2:
            print(f"not judged: that takes more than {WARM_FILES} files in one process")
        elif (growth := warm[-1] - warm[0]) > MAX_GROWTH_MB:
            failures.append(f"memory grew by {growth} MB from the {WARM_FILES}th file on")
        else:
            print(f"from the {WARM_FILES}th file on it grew by {growth} MB")
    return answers, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(range(*options.work))
        return
    end = options.first + options.files
    with tempfile.TemporaryDirectory() as folder:
        workers = []
        for index in range(options.workers):
            own = Path(folder, str(index))
            own.mkdir()
            workers.append(Worker(range(options.first + index, end, options.workers), own))
        answers, failures = watch(workers)
        for worker in workers:
            worker.errors.close()
            log = (worker.folder / "stderr").read_text(errors="replace")
            if log.strip():
                print("logged as errors:", log[-3000:])
    for line, count in sorted(answers.items()):
        print(f"{line:20} {count}")
    print(f"{answers.total()} files, {len(failures)} failures")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
