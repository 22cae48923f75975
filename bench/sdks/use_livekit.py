"""LiveKit's plugins over HTTP; its WebSockets are in bench.agents."""

import sys

import aiohttp
from livekit.plugins import elevenlabs, openai
from telling import tell

base, key = sys.argv[1:3]
TEXT = "Hello from a voice agent."


async def seconds(tts):
    return sum([event.frame.duration async for event in tts.synthesize(TEXT)]) > 0.5


async def with_openai(format):
    return await seconds(
        openai.TTS(model="tts-1", voice="alloy", base_url=f"{base}/openai/v1", api_key=key, response_format=format)
    )


async def with_elevenlabs():
    async with aiohttp.ClientSession() as session:
        return await seconds(
            elevenlabs.TTS(voice_id="alloy", api_key=key, base_url=f"{base}/elevenlabs/v1", http_session=session)
        )


tell("Speech", lambda: with_openai("mp3"))
tell("WAV", lambda: with_openai("wav"))
tell("Stream", with_elevenlabs)
