"""Why an attempt at a cover ends before its time."""

from __future__ import annotations

import errno
import logging

log = logging.getLogger(__name__)


class StageFailed(Exception):
    """code: a key of jobs.ERROR_MESSAGES; message: for the client, the code's own if empty; detail: for operators."""

    def __init__(self, code: str, message: str = "", detail: str = "") -> None:
        super().__init__(code)
        self.code, self.message, self.detail = code, message, detail


class NotOurs(Exception):
    """The job was canceled, taken over or deleted, or the worker is stopping."""


def as_failure(error: Exception, stage: str) -> StageFailed:
    match error:
        case StageFailed():
            return error
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return StageFailed("storage_full", detail=repr(error))
        case MemoryError():
            return StageFailed("out_of_memory", detail=repr(error))
    log.error("a stage broke", exc_info=error)
    return StageFailed(code_of_stage(stage), detail=repr(error))


def code_of_stage(stage: str) -> str:
    codes = {
        "separate": "separation_failed",
        "infer": "inference_failed",
        "mix": "mix_failed",
        "finalize": "mix_failed",
    }
    return codes.get(stage, "preprocess_failed")
