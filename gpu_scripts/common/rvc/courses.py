"""How the singing of Applio and of RVC-Project goes: what told_by_calls is told to expect of a process's first part.

Measured in their code at commits b9c0ccb1 and 4338f12 by the processor's time on one core, with networks of the size
that every voice of version 2 at 40 kHz has: rmvpe on 150 s, HuBERT and generator on 20 s. Other networks make other
calls: then it is told less evenly.
"""

from __future__ import annotations

import math

from common.calls import Course

RATE, FRAME = 16000, 160
CREPE_FRAMES = 512  # of a batch
SIDES = 2 * RATE  # what a song is lengthened by

RMVPE = Course(
    512,
    ((0, 0), (0.002, 0.034), (0.0215, 0.067), (0.0605, 0.178), (0.1328, 0.262), (0.7578, 0.559), (0.832, 0.619),
     (0.8418, 0.643), (0.9062, 0.71), (0.9082, 0.733), (0.9141, 0.74), (0.916, 0.765), (0.9219, 0.784),
     (0.9707, 0.924), (0.9844, 0.936), (0.9863, 0.947), (0.9883, 0.996), (1, 0.999)),
)  # fmt: skip
CREPE = Course(14, ((0, 0), (1, 1)))  # of a batch
APPLIO_PART = Course(
    669,
    ((0, 0), (0.0209, 0.023), (0.3348, 0.072), (0.4425, 0.122), (0.6353, 0.131), (0.6398, 0.147), (0.6981, 0.179),
     (0.7265, 0.213), (0.7309, 0.265), (0.7608, 0.321), (0.7892, 0.413), (0.8087, 0.511), (0.8176, 0.539),
     (0.8221, 0.596), (0.8804, 0.708), (0.9088, 0.793), (0.9103, 0.82), (0.9133, 0.832), (0.9716, 0.929), (1, 1)),
)  # fmt: skip
PROJECT_PART = Course(
    461,
    ((0, 0), (0.0304, 0.032), (0.4859, 0.08), (0.4902, 0.094), (0.6421, 0.146), (0.7961, 0.155), (0.846, 0.241),
     (0.8525, 0.298), (0.8655, 0.342), (0.8807, 0.43), (0.9024, 0.626), (0.9306, 0.728), (0.9458, 0.805),
     (0.9479, 0.835), (1, 1)),
)  # fmt: skip


def melody(f0_method: str, frames: int) -> tuple[float, Course | None]:
    """The size of the step that finds the melody of so many frames (16 kHz), and how it usually goes."""
    if f0_method.startswith("crepe"):
        return math.ceil((1 + (frames + SIDES) // FRAME) / CREPE_FRAMES), CREPE
    return 1.0, RMVPE if f0_method == "rmvpe" else None
