"""The clients of voice agents, as they are on PyPI, against a live server: over ElevenLabs' WebSockets.

    python -m bench.agents [--tools DIR]

Starts `quickstart` in a folder of its own, and has LiveKit's plugin and Pipecat's service speak a text that comes word
by word, as one that comes whole, two at once, and one that is interrupted. What they play has to last as long as what
the HTTP stream says of the same text, within their own pauses; the words that they time have to be the text, and to
come in its order.

--tools: where the packages are installed, and found again next time. They need 900 MB and are no part of the product.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.clients import server

PACKAGES = ("livekit-agents==1.8.9", "livekit-plugins-elevenlabs==1.8.9", "pipecat-ai==1.14.0")
VOICE, RATE = "alloy", 24_000
TEXT = (
    "Here is the first sentence of three, and it has a clause. This is the second one of them. "
    "And that was the third and last."
)
LIVEKIT = """
import asyncio, json, sys
import aiohttp
from livekit.plugins import elevenlabs

base, key, voice, text = sys.argv[1:]

async def speak(tts, pieces, first_only=False):
    stream = tts.stream()
    async def push():
        for piece in pieces:
            stream.push_text(piece)
            await asyncio.sleep(0.01)
        stream.end_input()
    pushing = asyncio.create_task(push())
    seconds, words = 0.0, []
    async for event in stream:
        seconds += event.frame.duration
        words += [(str(word), word.start_time) for word in event.frame.userdata.get("lk.timed_transcripts") or []]
        if first_only:
            break
    await pushing
    await stream.aclose()
    return {"seconds": seconds, "words": words}

async def main():
    words = [f"{word} " for word in text.split(" ")]
    async with aiohttp.ClientSession() as session:
        for options in ({"encoding": "pcm_24000"}, {}, {"chunk_length_schedule": [50, 100]}):
            tts = elevenlabs.TTS(voice_id=voice, api_key=key, base_url=f"{base}/elevenlabs/v1", http_session=session,
                                 **options)
            name = f"LiveKit, {options or 'as it comes'}"
            told = {"words": await speak(tts, words), "whole": await speak(tts, [text])}
            told["two at once"], told["and"] = await asyncio.gather(speak(tts, words), speak(tts, [text]))
            await speak(tts, [text, " ", text], first_only=True)
            told["after an interruption"] = await speak(tts, [text])
            await tts.aclose()
            print(json.dumps([[f"{name}, {way}", one] for way, one in told.items()]))

asyncio.run(main())
"""
PIPECAT = """
import asyncio, json, sys
from loguru import logger
logger.remove()
from pipecat.frames.frames import (
    ErrorFrame, InterruptionFrame, LLMFullResponseEndFrame, LLMFullResponseStartFrame, LLMTextFrame, TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService
from pipecat.services.tts_service import TextAggregationMode
from pipecat.tests.utils import SleepFrame, run_test

base, key, voice, text = sys.argv[1:]

async def main():
    said = [LLMFullResponseStartFrame(), *(LLMTextFrame(f"{word} ") for word in text.split(" ")),
            LLMFullResponseEndFrame()]
    for mode in (TextAggregationMode.SENTENCE, TextAggregationMode.TOKEN):
        for before in ([], [*said, SleepFrame(sleep=0.3), InterruptionFrame()]):
            tts = ElevenLabsTTSService(
                api_key=key, url=f"{base.replace('http', 'ws', 1)}/elevenlabs", sample_rate=24_000,
                text_aggregation_mode=mode,
                settings=ElevenLabsTTSService.Settings(voice=voice, model="eleven_flash_v2_5", speed=1.0),
            )
            down, up = await run_test(tts, frames_to_send=[*before, *said, SleepFrame(sleep=5.0)])
            cut = max((at for at, frame in enumerate(down) if isinstance(frame, InterruptionFrame)), default=0)
            down = down[cut:]
            seconds = sum(len(frame.audio) for frame in down if isinstance(frame, TTSAudioRawFrame)) / 48_000
            words = [(f"{frame.text} ", frame.pts / 1e9) for frame in down if isinstance(frame, TTSTextFrame)]
            errors = [str(frame) for frame in up if isinstance(frame, ErrorFrame)]
            name = f"Pipecat, {mode.value}{', after an interruption' if before else ''}"
            print(json.dumps([[name, {"seconds": seconds, "words": words, "errors": errors}]]))

asyncio.run(main())
"""


def streamed_seconds(base: str, key: str) -> float:
    """What the HTTP stream makes of the text."""
    request = urllib.request.Request(
        f"{base}/elevenlabs/v1/text-to-speech/{VOICE}/stream?output_format=pcm_{RATE}",
        json.dumps({"text": TEXT}).encode(), {"xi-api-key": key, "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=120) as answer:
        return len(answer.read()) / 2 / RATE


def wrong(told: dict[str, Any], seconds: float) -> str:
    """Why this is not the text, as it should sound; empty where it is."""
    if told.get("errors"):
        return str(told["errors"])
    if abs(told["seconds"] - seconds) > 0.3:
        return f"{told['seconds']:.2f} s, and the HTTP stream has {seconds:.2f} s"
    text = "".join(word for word, _ in told["words"])
    if text.split() != TEXT.split():
        return f"its words are: {text}"
    if any(after < before for (_, before), (_, after) in pairwise(told["words"])):
        return f"its words are not in order: {told['words']}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="agents-") as name:
        work = Path(name)
        tools = (arguments.tools or work / "tools").absolute()
        if not (tools / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", tools], check=True)
        subprocess.run([tools / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
        with server(work) as (base, key):
            streamed_seconds(base, key)  # The engine is started by its first sentence.
            seconds = streamed_seconds(base, key)
            for program in (LIVEKIT, PIPECAT):
                (work / "use.py").write_text(program)
                ran = subprocess.run(
                    [tools / "bin" / "python", work / "use.py", base, key, VOICE, TEXT],
                    stdout=subprocess.PIPE, text=True, timeout=300, check=True,
                )  # fmt: skip
                for line in ran.stdout.splitlines():
                    for way, told in json.loads(line):
                        why = wrong(told, seconds)
                        failed |= bool(why)
                        print(f"{way}: {why or format(told['seconds'], '.2f') + ' s, words in order'}", flush=True)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
