"""The requests of apps, as their code sends them, and what they read of the answers.

    python -m bench.sdks.apps BASE KEY PATH_KEY

Read in the version that each class names: of apps on PyPI and npm in their package, of others in their repository.
Written anew from that, with the official clients where the app has them; the apps themselves are not run.
`tests/compat/test_apps.py` sends the same ones.
The server has a saved voice "Jane of the Bench", a standing consent, and OPEN_VOICES_OF. PATH_KEY: of the kind `path`.
"""

from __future__ import annotations

import sys

from bench.sdks import integrations  # noqa: F401 - its classes are replayed too
from bench.sdks.app import (
    AIOHTTP,
    AXIOS,
    FETCH,
    JANE,
    LIBRECHAT,
    NODE_FETCH,
    OPENAI_NODE,
    OPENAI_PYTHON,
    PYTHON_REQUESTS,
    SAMPLE,
    TEXT,
    App,
)
from bench.sdks.telling import tell


class OpenWebUI(App):
    name, version, headers = "Open WebUI", "0.12.4", AIOHTTP

    def models(self) -> bool:
        return "tts-1" in [model["id"] for model in self._get(f"{self.openai}/audio/models")["models"]]

    def voices(self) -> bool:
        return JANE in self._known()

    def speech(self) -> bool:
        body = {"input": TEXT, "voice": self._known()[JANE], "model": "tts-1"}
        return self._heard("POST", f"{self.openai}/audio/speech", self.bearer, "audio/mpeg", json=body)

    def errors(self) -> bool:
        body = {"input": TEXT, "voice": "nobody", "model": ""}
        answer = self._ask("POST", f"{self.openai}/audio/speech", self.bearer, json=body)
        return answer.status_code == 404 and "no such voice" in answer.json()["error"]["message"]

    def _known(self) -> dict[str, str]:
        return {voice["name"]: voice["id"] for voice in self._get(f"{self.openai}/audio/voices")["voices"]}


class OpenWebUIElevenLabs(App):
    """With ELEVENLABS_API_BASE_URL."""

    name, version, headers = "Open WebUI (ElevenLabs)", "0.12.4", AIOHTTP

    def models(self) -> bool:
        headers = {**self.xi, "Content-Type": "application/json"}
        return any(model["name"] and model["model_id"] for model in self._get(f"{self.elevenlabs}/models", headers))

    def voices(self) -> bool:
        headers = {**self.xi, "Content-Type": "application/json"}
        found = self._get(f"{self.elevenlabs}/voices", headers)["voices"]
        return JANE in {voice["voice_id"]: voice["name"] for voice in found}.values()

    def speech(self) -> bool:
        headers = {**self.xi, "Accept": "audio/mpeg"}
        body = {"text": TEXT, "model_id": "", "voice_settings": {"stability": 0.5, "similarity_boost": 0.5}}
        return self._heard("POST", f"{self.elevenlabs}/text-to-speech/alloy", headers, "audio/mpeg", json=body)


class OpenReader(App):
    """It takes names, not ids."""

    name, version, headers = "OpenReader", "4.4.0", FETCH

    def voices(self) -> bool:
        found = self._get(f"{self.openai}/audio/voices", {**self.bearer, "Content-Type": "application/json"})
        return JANE in [voice["name"] for voice in found["voices"]]

    def speech(self) -> bool:
        headers = {**OPENAI_NODE, **self.bearer}
        body = {"model": "kokoro", "voice": JANE, "input": TEXT, "speed": 1, "response_format": "mp3"}
        return self._heard("POST", f"{self.openai}/audio/speech", headers, "audio/mpeg", json=body)


class SillyTavernOpenAI(App):
    """Its provider "OpenAI Compatible": the voices are typed in."""

    name, version, headers = "SillyTavern (OpenAI)", "1.19.0", NODE_FETCH

    def speech(self) -> bool:
        body = {"input": TEXT, "response_format": "mp3", "voice": JANE, "speed": 1, "model": "tts-1"}
        return self._heard("POST", f"{self.openai}/audio/speech", self.bearer, "audio/mpeg", json=body)

    def errors(self) -> bool:
        body = {"input": TEXT, "response_format": "mp3", "voice": JANE, "speed": 1, "model": "tts-1"}
        answer = self._ask("POST", f"{self.openai}/audio/speech", {"Authorization": "Bearer "}, json=body)
        return answer.status_code == 401


class SillyTavernElevenLabs(App):
    """What was said before is looked for in the history. The app itself knows no other address than ElevenLabs' own."""

    name, version, headers = "SillyTavern (ElevenLabs)", "1.19.0", NODE_FETCH

    def voices(self) -> bool:
        self._get(f"{self.elevenlabs}/voices/settings/default", self.xi)
        return JANE in [voice["name"] for voice in self._get(f"{self.elevenlabs}/voices", self.xi)["voices"]]

    def speech(self) -> bool:
        voices = self._get(f"{self.elevenlabs}/voices", self.xi)["voices"]
        self._voice_id = next(voice["voice_id"] for voice in voices if voice["name"] == JANE)
        style = {"stability": 0.75, "similarity_boost": 0.75, "speed": 1, "style": 0, "use_speaker_boost": True}
        body = {"model_id": "eleven_turbo_v2_5", "text": TEXT, "voice_settings": style}
        url = f"{self.elevenlabs}/text-to-speech/{self._voice_id}"
        return self._heard("POST", url, self.xi, "audio/mpeg", json=body)

    def history(self) -> bool:
        found = self._get(f"{self.elevenlabs}/history", self.xi)["history"]
        item = next(one for one in found if (one["text"], one["voice_id"]) == (TEXT, self._voice_id))
        return self._heard("GET", f"{self.elevenlabs}/history/{item['history_item_id']}/audio", self.xi, "audio/mpeg")

    def cloning(self) -> bool:
        form = {"name": "Uploaded", "description": "Uploaded via SillyTavern", "labels": ""}
        files = {"files": ("audio.flac", SAMPLE.read_bytes(), "audio/flac")}
        made = self._ask("POST", f"{self.elevenlabs}/voices/add", self.xi, data=form, files=files)
        made.raise_for_status()
        url = f"{self.elevenlabs}/voices/{made.json()['voice_id']}"
        return self._ask("DELETE", url, self.xi).json() == {"status": "ok"}


class SillyTavernGPTSoVITS(App):
    """Its providers "GPT-SoVITS-V2 (Unofficial)" and "Adapter", from a browser."""

    name, version, headers = "SillyTavern (GPT-SoVITS)", "1.19.0", {"Origin": "http://localhost:3000", "Accept": "*/*"}

    def voices(self) -> bool:
        return JANE in [voice["name"] for voice in self._get(f"{self.gptsovits}/speakers")]

    def speech(self) -> bool:
        common = {"text": TEXT, "text_lang": "en", "text_split_method": "cut5", "batch_size": 1,
                  "streaming_mode": "true"}  # fmt: skip
        voice_id = next(one["voice_id"] for one in self._get(f"{self.gptsovits}/speakers") if one["name"] == JANE)
        older = {**common, "prompt_text": voice_id, "prompt_lang": "zh", "ref_audio_path": f"./参考音频/{voice_id}.wav",
                 "media_type": "ogg"}  # fmt: skip
        newer = {**common, "card_name": "Someone", "use_st_adapter": True, "target_voice": voice_id,
                 "media_type": "ogg"}  # fmt: skip
        return all(self._heard("POST", f"{self.gptsovits}/", {}, "audio/ogg", json=body) for body in (older, newer))


class LibreChatOpenAI(App):
    """The URL is that of the speech itself; what is not set is left out, the header of the key too."""

    name, version, headers = "LibreChat (OpenAI)", "0.8.8", LIBRECHAT

    def speech(self) -> bool:
        headers = {"Content-Type": "application/json", **self.bearer}
        body = {"input": TEXT, "model": "tts-1", "voice": JANE}
        return self._heard("POST", f"{self.openai}/audio/speech", headers, "audio/mpeg", json=body)

    def errors(self) -> bool:
        body = {"input": TEXT, "model": "tts-1", "voice": JANE}
        headers = {"Content-Type": "application/json"}
        answer = self._ask("POST", f"{self.openai}/audio/speech", headers, json=body)
        return answer.status_code == 401


class LibreChatElevenLabs(App):
    """The URL has the voice; those of the list are not looked at then."""

    name, version, headers = "LibreChat (ElevenLabs)", "0.8.8", LIBRECHAT

    def speech(self) -> bool:
        headers = {"Content-Type": "application/json", **self.xi, "Accept": "audio/mpeg"}
        style = {"similarity_boost": 0.5, "stability": 0.5, "style": 0.2, "use_speaker_boost": False}
        body = {"model_id": "eleven_multilingual_v2", "text": TEXT, "voice_settings": style,
                "pronunciation_dictionary_locators": []}  # fmt: skip
        url = f"{self.elevenlabs}/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream"
        return self._heard("POST", url, headers, "audio/mpeg", json=body)


class LibreChatLocalAI(App):
    """The voice is sent as the model, as LocalAI has it, and nothing as the voice."""

    name, version, headers = "LibreChat (LocalAI)", "0.8.8", LIBRECHAT

    def speech(self) -> bool:
        headers = {"Content-Type": "application/json", **self.bearer}
        body = {"input": TEXT, "model": JANE, "backend": "piper"}
        return self._heard("POST", f"{self.openai}/audio/speech", headers, "audio/mpeg", json=body)


class N8n(App):
    """Six voices to choose from, so that a clone is reached by an alias. The credential is tried with the models."""

    name, version = "n8n", "2.41.1"
    headers = {**AXIOS, "User-Agent": "n8n", "Accept": "*/*", "OpenAI-Organization": ""}

    def models(self) -> bool:
        headers = {**self.bearer, "Accept": "application/json"}
        return bool(self._get(f"{self.openai}/models", headers)["data"])

    def speech(self) -> bool:
        kinds = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac"}
        for format, kind in kinds.items():
            body = {"model": "tts-1", "input": TEXT, "voice": "onyx", "response_format": format, "speed": 1}
            if not self._heard("POST", f"{self.openai}/audio/speech", self.bearer, kind, json=body):
                return False
        return True


class AnythingLLM(App):
    """Its provider "OpenAI Compatible"."""

    name, version, headers = "AnythingLLM", "1.16.0", {**OPENAI_NODE, "User-Agent": "OpenAI/JS 4.95.1"}

    def speech(self) -> bool:
        body = {"model": "tts-1", "voice": "alloy", "input": TEXT}
        return self._heard("POST", f"{self.openai}/audio/speech", self.bearer, "audio/mpeg", json=body)


class HomeAssistant(App):
    """`openai_tts` of the community, whose set-up says a full stop."""

    name, version, headers = "Home Assistant (openai_tts)", "3.7", AIOHTTP

    def voices(self) -> bool:
        headers = {**self.bearer, "User-Agent": "HomeAssistant-OpenAI-TTS"}
        found = self._get(f"{self.openai}/audio/voices", headers, params={"limit": 100})
        return JANE in [voice["name"] for voice in found["data"] if voice["id"]]

    def speech(self) -> bool:
        headers = {**self.bearer, "User-Agent": "HomeAssistant-OpenAI-TTS"}
        setting_up = {"model": "tts-1", "input": ".", "voice": "alloy", "response_format": "mp3"}
        self._ask("POST", f"{self.openai}/audio/speech", self.bearer, json=setting_up).raise_for_status()
        body = {"model": "tts-1", "input": TEXT, "voice": JANE, "response_format": "mp3", "speed": 1.0}
        return self._heard("POST", f"{self.openai}/audio/speech", headers, "audio/mpeg", json=body)


class WyomingOpenAI(App):
    """It asks which server it has. With TTS_BACKEND=KOKORO_FASTAPI it lists the voices, by their ids."""

    name, version = "wyoming_openai", "0.8.0"
    headers = {**OPENAI_PYTHON, "User-Agent": "CustomAsyncOpenAI/Python 2.44.0"}

    def models(self) -> bool:
        asked = f"{self.openai}/readyz", f"{self.openai}/../../health", f"{self.openai}/test"
        localai, speaches, kokoro = (self._ask("GET", url, self.bearer) for url in asked)
        return localai.status_code == kokoro.status_code == 404 and speaches.text != "OK"

    def voices(self) -> bool:
        voices = self._get(f"{self.openai}/audio/voices", self.bearer)["voices"]
        self._voice_id = next(voice["id"] for voice in voices if voice["name"] == JANE)
        return True

    def speech(self) -> bool:
        body = {"input": TEXT, "model": "tts-1", "voice": self._voice_id, "response_format": "wav"}
        return self._heard("POST", f"{self.openai}/audio/speech", self.bearer, "audio/wav", json=body)


class OpenAIAgents(App):
    """The voice pipeline of OpenAI's Agents SDK plays what comes as samples at 24 kHz, in blocks of 1,024 bytes."""

    name, version, headers = "OpenAI Agents SDK", "0.24.0", OPENAI_PYTHON

    def speech(self) -> bool:
        body = {"input": TEXT, "model": "gpt-4o-mini-tts", "voice": "ash", "response_format": "pcm",
                "instructions": "You will receive partial sentences. Just read them."}  # fmt: skip
        answer = self._ask("POST", f"{self.openai}/audio/speech", self.bearer, json=body)
        answer.raise_for_status()
        return len(answer.content) % 2 == 0 and len(answer.content) / 48_000 > 0.5


class AstrBotOpenAI(App):
    name, version, headers = "AstrBot (OpenAI)", "4.27.4", OPENAI_PYTHON

    def speech(self) -> bool:
        body = {"input": TEXT, "model": "", "voice": JANE, "response_format": "wav"}
        return self._heard("POST", f"{self.openai}/audio/speech", self.bearer, "audio/wav", json=body)


class AstrBotElevenLabs(App):
    name, version = "AstrBot (ElevenLabs)", "4.27.4"
    headers = {"User-Agent": "python-httpx/0.28.1", "Accept": "*/*"}

    def speech(self) -> bool:
        body = {"text": TEXT, "model_id": "eleven_multilingual_v2",
                "voice_settings": {"stability": 0.5, "use_speaker_boost": True}}  # fmt: skip
        url = f"{self.elevenlabs}/text-to-speech/JBFqnCBsd6RMkjVDRZzb"
        return all(
            self._heard("POST", url, self.xi, kind, json=body, params={"output_format": name})
            for name, kind in (("mp3_44100_128", "audio/mpeg"), ("wav_44100", "audio/wav"))
        )


class AstrBotGPTSoVITS(App):
    """All values are written in small letters."""

    name, version, headers = "AstrBot (GPT-SoVITS)", "4.27.4", AIOHTTP

    def speech(self) -> bool:
        query = {"text": TEXT, "text_lang": "en", "ref_audio_path": JANE.lower(), "prompt_text": "",
                 "prompt_lang": "en", "top_k": "5", "top_p": "1.0", "temperature": "1.0", "text_split_method": "cut3",
                 "batch_size": "1", "batch_threshold": "0.75", "split_bucket": "true", "speed_factor": "1.0",
                 "fragment_interval": "0.3", "streaming_mode": "false", "seed": "-1", "parallel_infer": "true",
                 "repetition_penalty": "1.35", "media_type": "wav"}  # fmt: skip
        return self._heard("GET", f"{self.gptsovits}/tts", {}, "audio/wav", params=query)


class PyVideoTransOpenAI(App):
    name, version = "pyvideotrans (OpenAI)", "4.05"
    headers = {**OPENAI_PYTHON, "User-Agent": "OpenAI/Python 2.54.0"}

    def speech(self) -> bool:
        body = {"input": TEXT, "model": "tts-1", "voice": JANE, "instructions": "", "response_format": "wav",
                "speed": 1.0}  # fmt: skip
        return self._heard("POST", f"{self.openai}/audio/speech", self.bearer, "audio/wav", json=body)


class PyVideoTransGPTSoVITS(App):
    """Its URL is written in small letters. For the older server it adds 1 to the speed."""

    name, version, headers = "pyvideotrans (GPT-SoVITS)", "4.05", PYTHON_REQUESTS

    def speech(self) -> bool:
        url = self.gptsovits.lower()
        newer = {"text": TEXT, "text_lang": "en", "ref_audio_path": f"{JANE}.wav", "prompt_text": "Words.",
                 "prompt_lang": "en", "speed_factor": 1.0, "text_split_method": "cut5"}  # fmt: skip
        older = {"text": TEXT, "text_language": "en", "refer_wav_path": f"{JANE}.wav", "prompt_text": "Words.",
                 "prompt_language": "en", "speed": 2.0}  # fmt: skip
        said = {f"{url}/tts": newer, url: older}
        return all(self._heard("POST", at, {}, "audio/wav", json=body) for at, body in said.items())


APPS: list[type[App]] = App.__subclasses__()

if __name__ == "__main__":
    for kind in APPS:
        app = kind(*sys.argv[1:])
        for feature, action in app.features():
            tell(f"{app.name} {app.version}: {feature}", action)
