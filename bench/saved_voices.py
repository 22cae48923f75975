"""How much faster a synthesis by voice_id is than one that uploads its reference, on the built-in engine.

    .venv/bin/python -m bench.saved_voices [--voices 6] [--text "It will rain in the afternoon."]

Each voice's sample is the package's own recording at another pitch, with its transcript and without. Every request goes
through the API in this process to an engine process that is warm (its models are loaded) and has, or has not, heard
the voice before. Requests by upload and by voice_id take turns. Prints medians in seconds and their ratio. Needs
nothing beyond requirements.txt; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

SAMPLES = Path(__file__).resolve().parent.parent / "voiceproject" / "samples"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--voices", type=int, default=6)
    parser.add_argument("--text", default="It will rain in the afternoon.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DATA_DIR": folder, "DJANGO_SETTINGS_MODULE": "voiceproject.settings", "LOG_LEVEL": "WARNING"}
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        run(arguments.voices, arguments.text)


def run(count: int, text: str) -> None:
    from django.contrib.auth.models import User
    from django.core.files.uploadedfile import SimpleUploadedFile
    from rest_framework.test import APIClient

    from voices.engines import configured
    from voices.keys.models import ApiKey

    _, secret = ApiKey.objects.issue(User.objects.create(username="bench"), "bench")
    client = APIClient(headers={"X-API-Key": secret, "Host": "localhost"})
    transcript = (SAMPLES / "reference.txt").read_text().strip()
    samples, rate = sf.read(SAMPLES / "reference.flac", dtype="float32")

    def file(number: int) -> SimpleUploadedFile:
        moved = soxr.resample(samples, rate, rate * (1 + 0.02 * number)).astype(np.float32)
        buffer = io.BytesIO()
        sf.write(buffer, moved, rate, format="WAV", subtype="PCM_16")
        return SimpleUploadedFile("reference.wav", buffer.getvalue(), "audio/wav")

    def save(number: int, words: str) -> str:
        form = {
            "name": "x",
            "sample": file(number),
            "transcript": words,
            "consent": "It is a recording of the package.",
        }
        response = client.post("/api/v1/voice/voices", form)
        assert response.status_code == 201, response.content
        return str(response.json()["voice_id"])

    def speak(**fields: object) -> float:
        started = time.perf_counter()
        response = client.post("/api/v1/voice/synthesize", {"text": text, "seed": 1, **fields})
        seconds = time.perf_counter() - started
        assert response.status_code == 200, response.content
        return seconds

    try:
        for words, name in (("", "without a transcript"), (transcript, "with a transcript")):
            voices = [save(number, words) for number in range(1, count + 1)]
            configured.close_engine()
            configured.load_engine.cache_clear()
            # Both base voices' models: one voice is low and one high.
            speak(reference_audio=file(-10))
            speak(reference_audio=file(30))
            for heard in ("first", "again"):
                uploaded, by_id = [], []
                for number, voice_id in enumerate(voices, 1):
                    uploaded.append(speak(reference_audio=file(number), reference_text=words))
                    by_id.append(speak(voice_id=voice_id))
                a, b = statistics.median(uploaded), statistics.median(by_id)
                print(f"{name}, {heard}: upload {a:.2f} s, voice_id {b:.2f} s, ratio {a / b:.2f}")
    finally:
        configured.close_engine()


if __name__ == "__main__":
    main()
