"""What the marks cost, what they survive, whom they accuse wrongly, and whether a look-up stays quick as they grow.

    python -m bench.provenance [--texts 70] [--songs 3] [--small 1000] [--large 100000] [--samples 60]

Speech is the built-in engine's: one voice saying `--texts` texts of about ten seconds that share many words.
Excerpts of 5 s, cut anywhere, are encoded as people do and asked for; texts of the same voice that are not in the index
are asked for as well, and none may be found. Songs are songs.py's, each covered in two voices that sing the same
melody over the same accompaniment: excerpts of 5 s of each cover are asked for, and the song, its accompaniment and the
other cover, of which none may be found. Then the index is filled to `--small` and `--large` recordings. A filler
has as many landmarks as speech of ten seconds. A tenth of them are those of the real speech, which is far more than
other speech in that voice really shares, as long as the index takes them (provenance.MAX_SAME_HASH). Runs on SQLite
in a folder of its own, or in the (empty) PostgreSQL database that DATABASE_URL names. Needs bench/requirements.txt.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

Audio = NDArray[np.float32]

SUBJECTS = (
    "The old sailor",
    "A young teacher",
    "My neighbour's dog",
    "The new council",
    "Every careful driver",
    "That quiet engineer",
    "Our third visitor",
    "The tired musician",
    "Some brave child",
    "The morning train",
)
VERBS = (
    "walked slowly towards",
    "never quite understood",
    "was hoping to repair",
    "looked twice behind",
    "finally wrote about",
    "had almost forgotten",
    "carried flowers across",
    "asked politely for",
    "painted pictures of",
    "kept dreaming about",
)
OBJECTS = ("the broken harbour wall before the winter storms arrived", "a small wooden bridge near the old village",
           "seventeen letters that nobody had ever answered", "the strange blue lights above the northern mountains",
           "an enormous map of every river in the country", "her grandmother's recipe for bread and salted fish",
           "the last concert of a very long and difficult year", "two questions which nobody would discuss",
           "a garden full of apples, pears and roses", "the empty station where no train had ever stopped")  # fmt: skip


def sentences(count: int) -> list[str]:
    draw = random.Random(5)
    lists = (SUBJECTS, VERBS, OBJECTS)
    return [" ".join(" ".join(map(draw.choice, lists)) + "." for _ in range(2)) for _ in range(count)]


def speak(texts: list[str], folder: Path) -> tuple[list[Audio], int]:
    from tests.support.audio import speech_like
    from voices.engines.builtin.engine import BuiltinEngine
    from voices.engines.interface import Reference, SynthesisRequest

    engine = BuiltinEngine(folder, concurrency=1)
    reference = Reference(speech_like(6.0), 16_000, "0" * 64, None, "en")
    clips, rate = [], 0
    try:
        for seed, text in enumerate(texts):
            request = SynthesisRequest(text, "en", reference, 1.0, 0.7, seed, None)
            pieces = list(engine.synthesize(request, time.monotonic() + 120, lambda: False))
            rate = pieces[0].sample_rate
            clips.append(np.concatenate([piece.samples for piece in pieces]).astype(np.float32))
    finally:
        engine.close()
    return clips, rate


def mp3(samples: Audio, rate: int, kilobits: int, target: int) -> tuple[Audio, int]:
    samples = soxr.resample(samples, rate, target)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream: Any = container.add_stream("libmp3lame", rate=target, layout="mono")
        stream.bit_rate = kilobits * 1000
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = target
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    buffer.seek(0)
    return sf.read(buffer, dtype="float32")


def opus(samples: Audio, rate: int) -> tuple[Audio, int]:
    from voiceproject.media import audio

    return sf.read(io.BytesIO(audio.encode(samples, rate, "opus")), dtype="float32")


NOISE = np.random.default_rng(3)
CHANGES: dict[str, Callable[[Audio, int], tuple[Audio, int]]] = {
    "mp3 128 kbit/s": lambda x, rate: mp3(x, rate, 128, 44_100),
    "mp3 64 kbit/s": lambda x, rate: mp3(x, rate, 64, 22_050),
    "mp3 32 kbit/s": lambda x, rate: mp3(x, rate, 32, 16_000),
    "opus": opus,
    "8 kHz": lambda x, rate: (soxr.resample(x, rate, 8_000), 8_000),
    "20 dB softer": lambda x, rate: (0.1 * x, rate),
    "noise at 20 dB": lambda x, rate: ((x + NOISE.normal(0, x.std() / 10, len(x))).astype(np.float32), rate),
    "1 % faster": lambda x, rate: (soxr.resample(x, rate * 1.01, rate), rate),
}


def report(name: str, action: Callable[[], Any], times: int) -> float:
    """Prints what an action takes; returns the p95 of its processor time in ms, which others' work does not stretch."""
    wall, processor = [], []
    for _ in range(times):
        started, worked = time.perf_counter(), time.process_time()
        action()
        wall.append(1000 * (time.perf_counter() - started))
        processor.append(1000 * (time.process_time() - worked))
    p95 = statistics.quantiles(processor, n=20)[-1]
    print(
        f"{name:34} median {statistics.median(wall):7.2f} ms; processor {statistics.median(processor):7.2f}, "
        f"p95 {p95:7.2f} ms",
        flush=True,
    )
    return p95


def signing(clip: Audio, rate: int) -> None:
    from voiceproject.media import audio
    from voiceproject.provenance import fingerprint
    from voiceproject.provenance.manifest import MIME_TYPES, sign

    ten = np.resize(clip, 10 * rate)
    for format in MIME_TYPES:
        plain = audio.encode(ten, rate, format)

        def sign_once(plain: bytes = plain, format: str = format) -> None:
            sign(plain, format, what="speech", job_id=uuid.uuid4())

        sign_once()
        report(f"sign 10 s of {format}", sign_once, 50)
    report("landmarks of 10 s", lambda: fingerprint.landmarks(ten, rate), 20)
    report("what is asked for 10 s", lambda: fingerprint.query(ten, rate), 20)


def robustness(clips: list[Audio], others: list[Audio], rate: int) -> None:
    from voiceproject.provenance import fingerprint, verification
    from voiceproject.provenance.marks import keep_landmarks
    from voiceproject.provenance.models import Landmark, Mark

    marks = []
    for clip in clips:
        mark = Mark.objects.create(kind="synthesis", job_id=uuid.uuid4(), sha256="")
        keep_landmarks(mark, fingerprint.landmarks(clip, rate))
        marks.append(mark.pk)
    print(f"{Landmark.objects.count() / sum(map(len, clips)) * rate:.1f} landmarks a second of speech", flush=True)

    def scores(asked: NDArray[np.int64]) -> dict[int, fingerprint.Score]:
        values = sorted(set(asked[:, 0].tolist()))
        rows = Landmark.objects.filter(hash__in=values).values_list("mark_id", "hash", "frame")
        return fingerprint.matches(asked, rows)

    cut = np.random.default_rng(1)
    nothing = fingerprint.Score()
    highest_wrong = nothing
    for name, change in CHANGES.items():
        right = wrong = 0
        least = fingerprint.Score(10**6)
        for clip, mark in zip(clips, marks, strict=True):
            start = int(cut.integers(0, len(clip) - 5 * rate))
            asked = fingerprint.query(*change(clip[start : start + 5 * rate], rate))
            found = verification._search(asked)
            right += found == mark
            wrong += found not in (mark, None)
            every = scores(asked)
            least = min(least, every.pop(mark, nothing))
            highest_wrong = max([highest_wrong, *every.values()])
        print(f"5 s, {name:16} found {right:3} of {len(clips)}, wrongly {wrong}; fewest {least}", flush=True)
    accused = 0
    for clip in others:
        asked = fingerprint.query(*mp3(clip, rate, 128, 44_100))
        accused += verification._search(asked) is not None
        highest_wrong = max([highest_wrong, *scores(asked).values()])
    print(f"the same voice with {len(others)} other texts: {accused} found to be made here")
    needed = f"{fingerprint.MIN_MATCHES} matches, spread over {fingerprint.MIN_SPREAD} frames"
    print(f"most that any wrong one shared: {highest_wrong}; needed are {needed}", flush=True)


def covers(count: int, folder: Path) -> None:
    """Excerpts of covers, and what has the melody or the accompaniment of one and is none of ours."""
    from tests.support.recordings import songs
    from voiceproject.provenance.marks import cover_landmarks, keep_landmarks
    from voiceproject.provenance.models import Landmark, Mark

    rate = 24_000

    def mono(samples: NDArray[np.float64]) -> Audio:
        return soxr.resample(samples.mean(axis=1), songs.RATE, rate).astype(np.float32)

    cut = np.random.default_rng(4)
    asked: list[tuple[str, int | None, Audio]] = []  # what it is, the mark it has, samples
    for seed in range(1, count + 1):
        song, vocals, backing = map(mono, songs.song(15.0, seed))
        sung = [songs.other_speaker(vocals, rate, pitch=1.0, tract=tract) for tract in (1.15, 0.88)]
        made = [(voice[: len(backing)] + backing[: len(voice)]).astype(np.float32) for voice in sung]
        parts = {"cover": made[0], "vocals": vocals, "backing": backing}
        paths = {name: folder / f"{name}.wav" for name in parts}
        for name, samples in parts.items():
            sf.write(paths[name], samples, rate, subtype="FLOAT")
        landmarks = cover_landmarks(*paths.values())
        mark = Mark.objects.create(kind="cover", job_id=uuid.uuid4(), sha256="")
        keep_landmarks(mark, landmarks)
        for _ in range(5):
            start = int(cut.integers(0, len(made[0]) - 5 * rate))
            asked.append(("5 s of a cover", mark.pk, made[0][start : start + 5 * rate]))
        for name, other in (("song", song), ("accompaniment", backing), ("song in another voice", made[1])):
            start = int(cut.integers(0, len(other) - 5 * rate))
            asked += [(f"5 s of a {name}", None, other[start : start + 5 * rate]), (f"a whole {name}", None, other)]
    for name in ("mp3 128 kbit/s", "mp3 64 kbit/s", "opus"):
        told = [(what, mark, _found(*CHANGES[name](samples, rate))) for what, mark, samples in asked]
        right = [found == mark for _, mark, found in told if mark is not None]
        wrong = collections.Counter(what for what, mark, found in told if found not in (mark, None))
        others = sum(mark is None for _, mark, _ in told)
        print(f"5 s of a cover, {name:16} found {sum(right)} of {len(right)}, {wrong.total()}/{others} others", *wrong)
    Mark.objects.filter(kind="cover").delete()
    assert not Landmark.objects.filter(mark__kind="cover").exists()


def _found(samples: Audio, rate: int) -> int | None:
    from voiceproject.provenance import fingerprint, verification

    return verification._search(fingerprint.query(samples, rate))


def fill(count: int, pool: NDArray[np.int64], each: int) -> None:
    """Recordings up to so many in all."""
    from django.db import connection, transaction

    from voiceproject.provenance.marks import MAX_SAME_HASH
    from voiceproject.provenance.models import Landmark, Mark

    draw = np.random.default_rng(9)
    taken = collections.Counter(Landmark.objects.values_list("hash", flat=True).iterator())
    there = Mark.objects.count()
    table = Landmark._meta.db_table
    place = "%s"
    for start in range(there, count, 1000):
        size = min(1000, count - start)
        marks = Mark.objects.bulk_create(
            [Mark(kind="synthesis", job_id=uuid.uuid4(), sha256=uuid.uuid4().hex) for _ in range(size)]
        )
        rows = []
        for mark in marks:
            hashes = draw.integers(0, 2**32, each)
            real = draw.random(each) < 0.1
            hashes[real] = draw.choice(pool, real.sum())
            frames = np.sort(draw.integers(0, 81, each))
            for value, frame in zip(hashes.tolist(), frames.tolist(), strict=True):
                if taken[value] < MAX_SAME_HASH:
                    rows.append((value, mark.pk, frame))
            taken.update(hashes[real].tolist())
        with transaction.atomic(), connection.cursor() as cursor:
            sql = (
                f"INSERT INTO {table} (hash, mark_id, frame) VALUES ({place}, {place}, {place}) ON CONFLICT DO NOTHING"
            )
            cursor.executemany(sql, rows)


def lookups(clips: list[Audio], rate: int, samples: int) -> float:
    from voiceproject.provenance import fingerprint, verification
    from voiceproject.provenance.models import Mark

    asked = [fingerprint.query(*mp3(clip[: 5 * rate], rate, 128, 44_100)) for clip in clips]
    for query in asked:  # The pages that a server would have in memory as well.
        assert verification._search(query)
    turn = iter(asked * (samples // len(asked) + 1))
    return report(f"look-up of 5 s among {Mark.objects.count()}", lambda: verification._search(next(turn)), samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=70)
    parser.add_argument("--songs", type=int, default=3)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DATA_DIR": folder, "ENV_FILE": os.devnull, "LOG_LEVEL": "WARNING"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "voiceproject.settings"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from voiceproject.provenance import fingerprint

        clips, rate = speak(sentences(options.texts + options.texts // 2), Path(folder))
        clips, others = clips[: options.texts], clips[options.texts :]
        signing(clips[0], rate)
        robustness(clips, others, rate)
        covers(options.songs, Path(folder))
        rows = [fingerprint.landmarks(clip, rate)[:, 0] for clip in clips]
        pool, each = np.concatenate(rows), round(statistics.mean(map(len, rows)))
        fill(options.small, pool, each)
        small = lookups(clips, rate, options.samples)
        fill(options.large, pool, each)
        large = lookups(clips, rate, options.samples)
        print(f"p95 grows to {large / small:.2f} of it")
        if not os.environ.get("DATABASE_URL"):
            print(f"the database has {(Path(folder) / 'db.sqlite3').stat().st_size / 1e6:.0f} MB")
    sys.exit(large > 2 * small + 5)


if __name__ == "__main__":
    main()
