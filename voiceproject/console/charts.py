"""The dashboard's charts: SVG of our own, coloured by classes, so that the page needs no script for them."""

from __future__ import annotations

from typing import Any

from voiceproject.console.timeline import stage_label
from voiceproject.jobs.status import JobStatus

OUTCOMES = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


def day_chart(days: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacked bars: x, y, width and height of each part on a canvas of 560 x 160, and the scale."""
    top = max((sum(day[status] for status in OUTCOMES) for day in days), default=0) or 1
    slot = 560 / len(days)
    bars = []
    for number, day in enumerate(days):
        y, parts = 140.0, []
        for status in OUTCOMES:
            height = 130 * day[status] / top
            y -= height
            if day[status]:
                parts.append({"kind": str(status), "y": f"{y:.1f}", "height": f"{height:.1f}"})
        bars.append(
            {
                "day": day["day"],
                "parts": parts,
                "x": f"{number * slot + slot * 0.15:.1f}",
                "middle": f"{(number + 0.5) * slot:.1f}",
                "slot_x": f"{number * slot:.1f}",
                "counts": {str(status): day[status] for status in OUTCOMES},
            }
        )
    total = {str(status): sum(day[status] for day in days) for status in OUTCOMES}
    return {"bars": bars, "width": f"{slot * 0.7:.1f}", "slot": f"{slot:.1f}", "top": top, "total": total}


def stage_chart(stages: list[tuple[str, float]]) -> list[dict[str, Any]]:
    longest = max((seconds for _stage, seconds in stages), default=0.0) or 1.0
    return [
        {"kind": stage, "label": stage_label(stage), "seconds": seconds, "width": f"{100 * seconds / longest:.1f}"}
        for stage, seconds in stages
    ]
