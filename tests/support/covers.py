"""Songs, commands that are quick instead of good, and covers made of them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import redis
import soundfile as sf
from dramatiq.brokers.redis import RedisBroker
from rest_framework.test import APIClient

from covers import tasks
from tests.support.threads import in_thread
from voiceproject.jobs import broker as jobs_broker
from voiceproject.operations import worker

QUICK = Path(__file__).parents[1] / "programs" / "quick_command.py"
SEPARATE = f"{{python_exec}} {QUICK} separate {{song_input}} {{vocal_output}} {{inst_output}}"
INFER = f"{{python_exec}} {QUICK} infer {{input_vocal}} {{output_vocal}}"
URL = "/api/v1/cover/jobs"
RATE = 44_100


def song(seconds: float = 3.0, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """float32 (n, channels): a tone on each side."""
    time_ = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * hz * time_) for hz in (220, 330)[:channels]], axis=1).astype(np.float32)


def download(client: APIClient, url: str) -> tuple[np.ndarray, int]:
    response = client.get(url)
    assert response.status_code == 200, response.content
    return sf.read(io.BytesIO(b"".join(response.streaming_content)), always_2d=True)


def level_at(samples: np.ndarray, hz: float) -> float:
    """Amplitude of a tone in samples (n,)."""
    time_ = np.arange(len(samples)) / RATE
    return float(2 * abs(np.mean(samples * np.exp(-2j * np.pi * hz * time_))))


def run_in_thread() -> threading.Thread:
    """Works off all covers that wait, as a worker would."""
    return in_thread(tasks.run_covers.fn)


@contextmanager
def away() -> Iterator[None]:
    """The actor's broker is a Redis where nothing listens: a real connection that is refused."""
    broker = RedisBroker(url="redis://127.0.0.1:1/0", middleware=[])
    broker.declare_actor(tasks.run_covers)
    errors = (*jobs_broker.UNREACHABLE, redis.RedisError)  # as where REDIS_URL is set
    original, tasks.run_covers.broker = tasks.run_covers.broker, broker
    try:
        with patch.object(jobs_broker, "UNREACHABLE", errors), patch.object(worker, "UNREACHABLE", errors):
            yield
    finally:
        tasks.run_covers.broker = original
