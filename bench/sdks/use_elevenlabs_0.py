"""elevenlabs for Python, 0.x: a module with functions, whose base URL is in the environment."""

import os
import sys

base, key, wav = sys.argv[1:4]
os.environ.update(ELEVEN_BASE_URL=f"{base}/elevenlabs/v1", ELEVEN_API_KEY=key)

import elevenlabs  # noqa: E402
from elevenlabs.api.error import APIError  # noqa: E402
from telling import tell  # noqa: E402

TEXT = "Hello from a client."


def speak(voice="alloy", **more):
    return elevenlabs.generate(TEXT, voice=elevenlabs.Voice(voice_id=voice), model="eleven_multilingual_v2", **more)


def clone():
    voice = elevenlabs.clone(name="Short lived", files=[wav])
    heard = elevenlabs.generate(TEXT, voice=voice)
    voice.delete()
    return heard


def refusal():
    try:
        speak("nobody")
    except APIError as error:
        return "voice" in error.message


tell("Models", lambda: list(elevenlabs.Models.from_api()))
tell("Speech", speak)
tell("Stream", lambda: sum(map(len, speak(stream=True, output_format="pcm_16000"))) > 20_000)
tell("Voice by name", lambda: elevenlabs.generate(TEXT, voice="Jane of the Bench"))
tell("Premade ids", lambda: speak("JBFqnCBsd6RMkjVDRZzb"))
tell("Cloning", clone)
tell("History", lambda: elevenlabs.History.from_api().history[0].audio)
tell("Errors", refusal)
