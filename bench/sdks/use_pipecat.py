"""Pipecat's service of OpenAI; its WebSockets are in bench.agents."""

import sys

from loguru import logger
from pipecat.frames.frames import TTSAudioRawFrame, TTSSpeakFrame
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.tests.utils import SleepFrame, run_test
from telling import tell

logger.remove()
base, key = sys.argv[1:3]


async def speak():
    settings = OpenAITTSService.Settings(voice="alloy", model="tts-1")
    tts = OpenAITTSService(api_key=key, base_url=f"{base}/openai/v1", settings=settings)
    down, _ = await run_test(tts, frames_to_send=[TTSSpeakFrame("Hello from an agent."), SleepFrame(sleep=4)])
    return sum(len(frame.audio) for frame in down if isinstance(frame, TTSAudioRawFrame)) > 20_000


tell("Speech", speak)
