"""openai for Python."""

import sys

import openai
from telling import tail_is_speech, tell

base, key = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{base}/openai/v1/", api_key=key, max_retries=0)
SAID = {"model": "tts-1", "input": "Hello from a client."}


def speak(**more):
    return client.audio.speech.create(**{**SAID, "voice": "alloy", **more}).read()


def stream():
    with client.audio.speech.with_streaming_response.create(**SAID, voice="alloy", response_format="pcm") as answer:
        return sum(map(len, answer.iter_bytes())) > 20_000


async def later():
    async with openai.AsyncOpenAI(base_url=f"{base}/openai/v1", api_key=key) as other:
        return (await other.audio.speech.create(**SAID, voice="alloy")).content


def refusal():
    try:
        speak(voice="nobody")
    except openai.NotFoundError as error:
        return error.code == "not_found" and error.message


tell("Models", lambda: [model.id for model in client.models.list()])
tell("Speech", lambda: all(speak(response_format=name) for name in ("mp3", "opus", "aac", "flac", "pcm")))
tell("WAV", lambda: tail_is_speech(speak(response_format="wav")))
tell("Stream", stream)
tell("Async", later)
tell("Voice by name", lambda: speak(voice="jane of the bench"))
tell("Errors", refusal)
