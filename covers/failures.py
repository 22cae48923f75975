"""What a stage of a cover fails with, where nothing more is known."""

from __future__ import annotations

CODES = {
    "separate": "separation_failed",
    "infer": "inference_failed",
    "mix": "mix_failed",
    "finalize": "mix_failed",
}


def code_of_stage(stage: str) -> str:
    return CODES.get(stage, "preprocess_failed")
