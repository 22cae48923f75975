"""Requests of apps that have no SDK in between, in the shape that they send; see docs/clients.md for what was read."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any

from telling import tell

base, key = sys.argv[1:3]
OPENAI, ELEVENLABS = f"{base}/openai/v1", f"{base}/elevenlabs/v1"


def ask(url: str, body: Any = None, **headers: str) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if data:
        headers["Content-Type"] = "application/json"
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120) as answer:
        return answer.read()


def names(url: str, list_: str, **headers: str) -> list[str]:
    return [entry["id"] for entry in json.loads(ask(url, **headers))[list_]]


bearer = {"Authorization": f"Bearer {key}"}
xi = {"xi_api_key": key}
# Open WebUI: its lists come without a key; the speech's body is what the user's request had, with its own settings.
tell("Open WebUI: Models", lambda: "tts-1" in names(f"{OPENAI}/audio/models", "models"))
tell("Open WebUI: Voices", lambda: "alloy" in names(f"{OPENAI}/audio/voices", "voices"))
tell("Open WebUI: Speech", lambda: ask(
    f"{OPENAI}/audio/speech", {"model": "tts-1", "input": "Hello.", "voice": "alloy"}, **bearer))  # fmt: skip
# OpenReader
tell("OpenReader: Voices", lambda: "alloy" in names(f"{OPENAI}/audio/voices", "voices", **bearer))
# SillyTavern's providers
tell("SillyTavern (OpenAI): Speech", lambda: ask(f"{OPENAI}/audio/speech", {
    "input": "Hello.", "response_format": "mp3", "voice": "alloy", "speed": 1, "model": "tts-1",
    "instructions": ""}, **bearer))  # fmt: skip
STYLE = {"stability": 0.75, "similarity_boost": 0.75, "speed": 1, "style": 0.0, "use_speaker_boost": True}
tell("SillyTavern (ElevenLabs): Speech", lambda: ask(f"{ELEVENLABS}/text-to-speech/alloy", {
    "model_id": "eleven_turbo_v2_5", "text": "Hello.", "voice_settings": STYLE}, **xi))  # fmt: skip
tell("SillyTavern (ElevenLabs): Voices", lambda: json.loads(ask(f"{ELEVENLABS}/voices", **xi))["voices"])
tell("SillyTavern (ElevenLabs): History", lambda: json.loads(ask(f"{ELEVENLABS}/history", **xi))["history"])
# LibreChat
tell("LibreChat (OpenAI): Speech", lambda: ask(f"{OPENAI}/audio/speech", {
    "input": "Hello.", "model": "tts-1", "voice": "alloy", "backend": None}, **bearer))  # fmt: skip
tell("LibreChat (ElevenLabs): Speech", lambda: ask(f"{ELEVENLABS}/text-to-speech/alloy/stream", {
    "model_id": "eleven_multilingual_v2", "text": "Hello.", "voice_settings": {
        "similarity_boost": 0.5, "stability": 0.5, "style": 0.2, "use_speaker_boost": False},
    "pronunciation_dictionary_locators": []}, **xi))  # fmt: skip
# n8n's node of OpenAI: six names to choose from, so that a clone is reached by an alias.
tell("n8n: Speech", lambda: ask(f"{OPENAI}/audio/speech", {
    "model": "tts-1", "input": "Hello.", "voice": "onyx", "response_format": "mp3", "speed": 1}, **bearer))  # fmt: skip
