"""litellm's speech, by its provider of OpenAI."""

import sys

import litellm
from telling import tell

base, key = sys.argv[1:3]
asked = {"model": "openai/tts-1", "input": "Hello from a client.", "api_base": f"{base}/openai/v1", "api_key": key}


async def later():
    return (await litellm.aspeech(**asked, voice="alloy")).content


tell("Speech", lambda: litellm.speech(**asked, voice="alloy").content)
tell("Voice by name", lambda: litellm.speech(**asked, voice="jane of the bench").content)
tell("Async", later)
