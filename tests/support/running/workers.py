"""Worker processes on the test's own database and media, and covers that wait for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from model_bakery import baker

from covers.models import CoverJob
from tests.support.audio import speech_like, wav_bytes
from tests.support.covers import INFER, RATE, SEPARATE, song
from tests.support.running.processes import database_url
from voiceproject.tenants.models import Tenant


def submit(**fields: Any) -> CoverJob:
    user, _ = User.objects.get_or_create(username="alice")
    Tenant.objects.get_or_create(user=user)
    job = baker.prepare(CoverJob, tenant=user, stage="queued", **fields)
    storage = job.song.storage
    job.song = storage.save(f"covers/{job.pk}/0-song", ContentFile(wav_bytes(song(1.5), RATE)))
    job.reference_voice = storage.save(f"covers/{job.pk}/0-reference", ContentFile(wav_bytes(speech_like(), 16_000)))
    job.save(force_insert=True)
    return job


@contextmanager
def a_worker(separate: str = "", infer: str = "", **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process on the test's own database and media."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
    process = subprocess.Popen(
        [sys.executable, "-m", "dramatiq", "voiceproject.worker", "--processes", "1", "--threads", "4"],
        cwd=settings.BASE_DIR,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "voiceproject.settings",
            "DATABASE_URL": database_url(),
            "DATA_DIR": str(settings.DATA_DIR),
            "WORKER_HEARTBEAT_TIMEOUT_SECONDS": "5",
            "COVER_SEPARATE_CMD_TEMPLATE": f"{SEPARATE} {separate}",
            "COVER_FIND_VOICE": "false",
            "COVER_INFER_CMD_TEMPLATE": f"{INFER} {infer}",
            **environment,
        },
        stderr=log,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.close()
