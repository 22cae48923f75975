"""What the programs here share: each tries features, and tells of each on a line. Runs in any environment."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any


def tell(feature: str, action: Callable[[], Any]) -> None:
    """Calls it, also where it is a coroutine function; what it returns has to be true."""
    try:
        made = action()
        if inspect.iscoroutine(made):
            made = asyncio.run(made)
        why = "" if made else "nothing came"
    except Exception as error:
        why = f"{type(error).__name__}: {error}"[:200]
    print(json.dumps({"feature": feature, "why": why}), flush=True)


def tail_is_speech(wav: bytes) -> bool:
    """Whether a program that takes all behind the header of `data` for samples hears no manifest."""
    return b"C2PA" not in wav and len(wav) - wav.index(b"data") - 8 == int.from_bytes(
        wav[wav.index(b"data") + 4 : wav.index(b"data") + 8], "little"
    )
