"""The one thread that beats for all jobs of a process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from django.db import OperationalError

from voiceproject.jobs.heartbeat import BEAT_SECONDS, Heartbeat

pytestmark = pytest.mark.django_db(transaction=True)


class Job:
    """As much of a job as a heartbeat sees."""

    stage = "infer"
    error_detail = ""

    def __init__(self, name: str, beats: Counter[str], fails: bool = False) -> None:
        self.pk, self._beats, self._fails = name, beats, fails
        self.stages: list[str] = []
        self.threads: set[int] = set()

    def beat(self, stage: str, progress: int, tail: str) -> bool:
        self._beats[self.pk] += 1
        self.stages.append(stage)
        self.threads.add(threading.get_ident())
        if self._fails:
            raise OperationalError("away")
        return True


def heartbeat(*args: Any) -> Heartbeat:
    return Heartbeat(Job(*args))  # type: ignore[arg-type]


def test_forty_jobs_are_beaten_for_by_one_thread_each_on_its_time() -> None:
    beats: Counter[str] = Counter()
    many = [heartbeat(str(number), beats) for number in range(40)]
    before = threading.active_count()
    for one in many:
        one.__enter__()
    time.sleep(3.5 * BEAT_SECONDS)
    assert threading.active_count() <= before + 1
    for one in many:
        one.__exit__()
    assert set(beats.values()) <= {2, 3, 4} and len(beats) == 40
    assert len(set.union(*(one.job.threads for one in many))) == 1  # type: ignore[attr-defined]


def test_a_job_that_has_ended_is_beaten_for_no_more_and_one_that_ends_early_never() -> None:
    beats: Counter[str] = Counter()
    with heartbeat("early", beats):
        pass
    with heartbeat("late", beats):
        time.sleep(1.5 * BEAT_SECONDS)
    time.sleep(2 * BEAT_SECONDS)
    assert beats == {"late": 1}


def test_a_beat_that_fails_stops_neither_the_next_one_nor_those_of_others() -> None:
    beats: Counter[str] = Counter()
    with heartbeat("broken", beats, True) as broken, heartbeat("sound", beats) as sound:
        time.sleep(3.5 * BEAT_SECONDS)
        assert beats["broken"] >= 2 and beats["sound"] >= 2
        assert broken.heard_at < sound.heard_at
    assert not broken.lost.is_set()


def test_a_new_stage_is_told_at_once_and_the_beats_go_on_from_there() -> None:
    beats: Counter[str] = Counter()
    with heartbeat("a", beats) as one:
        one.stage = "mix"
        one.tell()
        time.sleep(BEAT_SECONDS / 2)
        assert one.job.stages == ["mix"]  # type: ignore[attr-defined]
        time.sleep(2.5 * BEAT_SECONDS)
    assert 3 <= beats["a"] <= 4
