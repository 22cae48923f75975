"""`manage.py synthesize TEXT --reference FILE -o OUT.wav`: a text spoken in the voice of a recording."""

from __future__ import annotations

import secrets
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.files import File

from voiceproject import audio
from voiceproject.terminal import JobCommand, existing_file, told_plainly
from voices import synthesis, tasks
from voices.models import Synthesis
from voices.serializers import FORMATS, LANGUAGES, MAX_SEED, SynthesizeSerializer


class Command(JobCommand):
    help = "Speaks a text in the voice of a recording and writes it to a file. Needs no server; Ctrl-C cancels."
    formats = FORMATS

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("text", help="what to say; - reads it from standard input")
        parser.add_argument("--reference", type=existing_file, required=True, help="3 to 60 s of the voice to copy")
        parser.add_argument("--reference-text", default="", help="what is said in the whole of it")
        parser.add_argument("--reference-language", choices=LANGUAGES, default="auto")
        parser.add_argument(
            "--language", choices=LANGUAGES, default="auto", help="of the text (default: by its script)"
        )
        parser.add_argument("--speed", default="1.0", help="0.5 to 2.0; 2 is twice as fast (default: %(default)s)")
        parser.add_argument("--temperature", default="0.7", help="0.1 to 1.0 (default: %(default)s)")
        parser.add_argument("--seed", help="the same seed gives the same audio on the built-in engine")
        parser.add_argument("--model-id", default="", help="of GPT-SoVITS, as the console has it")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        response_format = self.output_format(options["output"])
        text = self.read_text(options["text"])
        self.prepare_database()
        with told_plainly(), options["reference"].open("rb") as file:
            names = ("reference_text", "reference_language", "language", "speed", "temperature", "seed", "model_id")
            data = {name: options[name] for name in names if options[name] is not None}
            reference_file = File(file, name=options["reference"].name)
            serializer = SynthesizeSerializer(
                data={**data, "text": text, "reference_audio": reference_file, "response_format": response_format}
            )
            serializer.is_valid(raise_exception=True)
            audio.load_reference(options["reference"], field="reference")
        fields = serializer.validated_data
        seed = fields.get("seed")
        kept = ("text", "language", "reference_text", "reference_language", "speed", "temperature", "model_id")
        job = Synthesis(
            background=True,
            reference_hash=audio.sha256_file(options["reference"]),
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            response_format=response_format,
            **{name: fields[name] for name in kept},
        )
        try:
            self.work(job, {"reference_audio": options["reference"]}, "audio", tasks.run, options["output"])
        finally:
            synthesis.close_engine()
        seconds = f"{job.duration_seconds:.1f} s of {response_format} by {job.engine}, seed {job.seed}"
        self.stdout.write(f"{options['output']}: {seconds}")

    @staticmethod
    def read_text(text: str) -> str:
        return sys.stdin.read() if text == "-" else text
