"""elevenlabs for Python, 1.x and 2.x."""

import sys
from importlib.metadata import version

import httpx
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from telling import tail_is_speech, tell

base, key, wav = sys.argv[1:4]


class ToServer(httpx.HTTPTransport):
    """In place of a proxy on port 80: connects to the server, and leaves the name that is asked for."""

    def handle_request(self, request):
        to = httpx.URL(base)
        request.url = request.url.copy_with(scheme=to.scheme, host=to.host, port=to.port)
        return super().handle_request(request)


if version("elevenlabs").startswith("1."):
    # It takes the host of base_url alone, for which COMPAT_HOSTS is.
    http = httpx.Client(transport=ToServer(), timeout=60)
    client = ElevenLabs(base_url="http://eleven.example.com/elevenlabs", api_key=key, httpx_client=http)
else:
    client = ElevenLabs(base_url=f"{base}/elevenlabs", api_key=key)
SAID = {"text": "Hello from a client.", "model_id": "eleven_multilingual_v2"}


def speak(voice="alloy", **more):
    return b"".join(client.text_to_speech.convert(voice, **SAID, **more))


def stream():
    streams = getattr(client.text_to_speech, "stream", None) or client.text_to_speech.convert_as_stream
    return sum(map(len, streams("alloy", **SAID, output_format="pcm_16000"))) > 20_000


def times():
    answer = client.text_to_speech.convert_with_timestamps("alloy", **SAID)
    told = answer.alignment if hasattr(answer, "alignment") else answer["alignment"]
    return "".join(told.characters if hasattr(told, "characters") else told["characters"]) == SAID["text"]


def clone():
    adding = client.voices.ivc.create if hasattr(client.voices, "ivc") else client.voices.add
    with open(wav, "rb") as file:
        voice_id = adding(name="Short lived", files=[file]).voice_id
    heard = speak(voice_id)
    client.voices.delete(voice_id)
    return heard


def refusal():
    try:
        speak("nobody")
    except ApiError as error:
        return error.status_code == 404 and error.body["detail"]["code"] == "voice_not_found"


def history():
    listed = (client.history.get_all if hasattr(client.history, "get_all") else client.history.list)()
    getting = getattr(client.history, "get_audio", None) or client.history.audio.get
    return b"".join(getting(listed.history[0].history_item_id))


tell("Models", lambda: (getattr(client.models, "list", None) or client.models.get_all)())
tell("Speech", speak)
tell("WAV", lambda: tail_is_speech(speak(output_format="wav_24000")))
tell("Stream", stream)
tell("Timestamps", times)
tell("Voice by name", lambda: speak("jane of the bench"))
tell("Premade ids", lambda: speak("JBFqnCBsd6RMkjVDRZzb"))
tell("Cloning", clone)
tell("History", history)
tell("Errors", refusal)
