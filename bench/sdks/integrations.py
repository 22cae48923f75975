"""Home Assistant's own integrations, with the official clients that they use. Part of bench.sdks.apps."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import elevenlabs
import httpx
import openai
from elevenlabs.core import ApiError

from bench.sdks.app import JANE, SAMPLE, TEXT, App, seconds_of


class HomeAssistantOpenAI(App):
    """Its own integration, by OpenAI's client, which takes another address from OPENAI_BASE_URL of its environment."""

    name, version = "Home Assistant (OpenAI)", "2026.11.0"

    async def _do(self, action: Callable[[openai.AsyncOpenAI], Awaitable[Any]], key: str | None = None) -> Any:
        async with openai.DefaultAsyncHttpxClient() as transport:
            key = key or self.bearer["Authorization"].removeprefix("Bearer ")
            client = openai.AsyncOpenAI(api_key=key, base_url=self.openai, http_client=transport)
            return await action(client)

    def models(self) -> bool:
        return bool(asyncio.run(self._do(lambda client: client.models.list(timeout=10.0))).data)

    def speech(self) -> bool:
        async def speak(client: openai.AsyncOpenAI) -> bool:
            for format in ("mp3", "opus", "aac", "flac", "wav"):
                async with client.audio.speech.with_streaming_response.create(
                    model="gpt-4o-mini-tts", voice="marin", input=TEXT, instructions="", speed=1.0,
                    response_format=format,
                ) as response:  # fmt: skip
                    made = b"".join([block async for block in response.iter_bytes()])
                if seconds_of(made) < 0.5:
                    return False
            return True

        return bool(asyncio.run(self._do(speak)))

    def errors(self) -> bool:
        """A wrong key asks for a new one; speech that is to be recognised ends in an error that it knows."""

        async def listen(client: openai.AsyncOpenAI) -> Any:
            return await client.audio.transcriptions.create(
                model="gpt-4o-mini-transcribe", file=("a.wav", SAMPLE.read_bytes()), response_format="json", prompt="x"
            )

        try:
            asyncio.run(self._do(lambda client: client.models.list(timeout=10.0), "wrong"))
        except openai.AuthenticationError:
            try:
                asyncio.run(self._do(listen))
            except openai.NotFoundError:
                return True
        return False


class HomeAssistantElevenLabs(App):
    """Its own integration, by ElevenLabs' client. It knows no other address than ElevenLabs' own."""

    name, version = "Home Assistant (ElevenLabs)", "2026.11.0"
    STYLE = elevenlabs.VoiceSettings(stability=0.5, similarity_boost=0.75, style=0, use_speaker_boost=True)

    async def _do(self, action: Callable[[elevenlabs.AsyncElevenLabs], Awaitable[Any]], key: str | None = None) -> Any:
        async with httpx.AsyncClient() as transport:
            base = self.elevenlabs.removesuffix("/v1")
            client = elevenlabs.AsyncElevenLabs(
                api_key=key or self.xi["xi-api-key"], base_url=base, httpx_client=transport
            )
            return await action(client)

    def models(self) -> bool:
        """The default of its set-up has to be there, and to tell its languages."""
        models = asyncio.run(self._do(lambda client: client.models.list()))
        model = next(one for one in models if one.model_id == "eleven_multilingual_v2")
        self._languages = [language.language_id for language in model.languages]
        return bool(self._languages and model.name and model.can_do_text_to_speech)

    def voices(self) -> bool:
        voices = asyncio.run(self._do(lambda client: client.voices.get_all())).voices
        self._voice_id = {voice.name: voice.voice_id for voice in voices if voice.name}[JANE]
        return True

    def speech(self) -> bool:
        async def speak(client: elevenlabs.AsyncElevenLabs) -> bytes:
            audio = client.text_to_speech.convert(
                text=TEXT, voice_id=self._voice_id, voice_settings=self.STYLE, model_id="eleven_multilingual_v2"
            )
            return b"".join([block async for block in audio])

        return seconds_of(asyncio.run(self._do(speak))) > 0.5

    def stream(self) -> bool:
        """A sentence a request, which names those before it. In each language that the model tells."""

        async def speak(client: elevenlabs.AsyncElevenLabs) -> bool:
            before: deque[str] = deque(maxlen=3)
            for language in self._languages:
                sent = {"voice_id": self._voice_id, "model_id": "eleven_multilingual_v2", "language_code": language,
                        "output_format": "mp3_44100_128", "voice_settings": self.STYLE, "text": TEXT,
                        **({"previous_request_ids": list(before)} if before else {})}  # fmt: skip
                async with client.text_to_speech.with_raw_response.stream(**sent) as stream:
                    made = b"".join([block async for block in stream.data])
                    before.append(stream.headers["request-id"])
                if seconds_of(made) < 0.5:
                    return False
            return len(set(before)) == len(before)

        return bool(asyncio.run(self._do(speak)))

    def errors(self) -> bool:
        """A wrong key asks for a new one; speech that is to be recognised ends in an error that it knows."""

        async def listen(client: elevenlabs.AsyncElevenLabs) -> Any:
            return await client.speech_to_text.convert(
                file=io.BytesIO(bytes(32_000)), file_format="pcm_s16le_16", model_id="scribe_v2", num_speakers=1,
                tag_audio_events=False, diarize=False, language_code="en",
            )  # fmt: skip

        try:
            asyncio.run(self._do(lambda client: client.voices.get_all(), "wrong"))
        except ApiError as error:
            if (error.status_code, error.body["detail"]["status"]) != (401, "invalid_api_key"):
                raise
            try:
                asyncio.run(self._do(listen))
            except ApiError as other:
                return other.status_code == 404
        return False
