"""The process that speaks: `python -m voices.engines.builtin.child`. pool.py says what goes over the pipes."""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from voiceproject.errors import EngineError, PublicError
from voices.engines.interface import Piece, Reference

from . import world
from .synthesizer import Synthesizer

log = logging.getLogger(__name__)

KEPT_REFERENCE_BYTES = 48 << 20
# After the last use, so that deleted references do not stay. The server sends a reference again when it is needed.
KEPT_SECONDS = 600.0
IDLE_SECONDS = 60.0


def main() -> None:
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO").upper(), format="%(name)s: %(message)s")
    # Whatever a library prints must not get between the answers: stdout is kept for them under another number.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    orders = os.fdopen(os.dup(0), "rb")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve(orders, answers)


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Answers each message with one, until the end of the orders."""
    synthesizer = Synthesizer()
    references: OrderedDict[str, Reference] = OrderedDict()
    used: dict[str, float] = {}
    while line := _next(orders, lambda: forget(synthesizer, references, used)):
        forget(synthesizer, references, used)
        message = json.loads(line)
        if key := message.get("reference") or message.get("profile"):
            used[key] = time.monotonic()
        data = orders.read(message.pop("bytes"))
        answer: dict[str, Any]
        audio = b""
        try:
            answer, audio = answer_to(message, data, synthesizer, references)
        except PublicError as error:
            answer = {"error": error.code, "message": error.message, "details": error.details}
        except Exception:
            # The border of the process: the server answers engine_error, the operator reads why in the log.
            log.exception("a sentence could not be spoken")
            failure = EngineError()
            answer = {"error": failure.code, "message": failure.message, "details": {}}
        answer |= {"bytes": len(audio), "resident_bytes": resident_bytes()}
        answers.write(json.dumps(answer).encode() + b"\n" + audio)
        answers.flush()


def forget(synthesizer: Synthesizer, references: OrderedDict[str, Reference], used: dict[str, float]) -> None:
    """What was not used for KEPT_SECONDS. used: reference -> time.monotonic() of its last use."""
    limit = time.monotonic() - KEPT_SECONDS
    for key in [key for key, at in used.items() if at <= limit]:
        del used[key]
        references.pop(key, None)
    synthesizer.forget(KEPT_SECONDS)


def _next(orders: BinaryIO, idle: Callable[[], None]) -> bytes:
    """The next line, empty at the end; `idle` is called every minute without one."""
    # The buffer is empty: the next order comes only after this one was answered.
    while not select.select([orders], [], [], IDLE_SECONDS)[0]:
        idle()
    return orders.readline()


def answer_to(
    message: dict[str, Any], data: bytes, synthesizer: Synthesizer, references: OrderedDict[str, Reference]
) -> tuple[dict[str, Any], bytes]:
    if key := message.pop("reference", None):
        references[key] = Reference(np.frombuffer(data, np.float32), **message)
        while len(references) > 1 and sum(r.samples.nbytes for r in references.values()) > KEPT_REFERENCE_BYTES:
            references.popitem(last=False)
        return {}, b""
    if key := message.pop("kept", None):
        return {"taken": synthesizer.take(key, message["language"], data)}, b""
    if key := message.pop("keep", None):
        return {}, synthesizer.keep(synthesizer.prepare(references[key]), message["language"])
    if preset := message.pop("base", None):
        message.pop("clear")  # nothing is converted, so it is as clear as can be
        piece = synthesizer.speak_preset(preset=preset, **{**message, "seed": tuple(message["seed"])})
        return {"sample_rate": piece.sample_rate}, piece.samples.tobytes()
    key = message.pop("profile")
    profile = synthesizer.known(key, message["language"])
    if profile is None:
        if key not in references:
            return {"need": "reference"}, b""
        references.move_to_end(key)
        profile = synthesizer.prepare(references[key])
    before = len(profile.pairs)
    if message.pop("prepare", False):
        synthesizer.pairs(synthesizer.choose_base(message["language"], profile), profile)
        piece = Piece(np.zeros(0, np.float32), world.SAMPLE_RATE, "")
    else:
        piece = synthesizer.speak(profile=profile, **{**message, "seed": tuple(message["seed"])})
    return {"sample_rate": piece.sample_rate, "made": len(profile.pairs) > before}, piece.samples.tobytes()


def resident_bytes() -> int:
    """Memory of this process now; the most that it had, where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _end_with_parent() -> None:
    """Ends the process at once when the other end of stdin is closed, in the middle of a sentence too."""
    poll = select.poll()
    poll.register(0, 0)  # hang-up is always reported
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
