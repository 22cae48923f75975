"""`manage.py synthesize TEXT --reference FILE -o OUT.wav`: a text spoken in the voice of a recording."""

from __future__ import annotations

import secrets
import sys
from argparse import ArgumentParser
from contextlib import ExitStack
from typing import Any

from django.core.files import File

from voiceproject.media import audio
from voiceproject.operations.terminal import JobCommand, told_plainly
from voices.engines import configured
from voices.engines.interface import Reference
from voices.lexicons.stored import for_text
from voices.library import selection
from voices.speech import registry, tasks
from voices.speech.models import Synthesis
from voices.speech.serializers import FORMATS, MAX_SEED, SynthesizeSerializer, check_text
from voices.text.lexicon import Lexicon


class Command(JobCommand):
    help = "Speaks a text in the voice of a recording and writes it to a file. Needs no server; Ctrl-C cancels."
    formats = FORMATS

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("text", help="what to say; - reads it from standard input")
        self.add_voice(parser)
        parser.add_argument("--reference-text", default="", help="what is said in the whole of it")
        parser.add_argument("--reference-language", default="auto", help="of --reference-text")
        parser.add_argument("--language", default="auto", help="of the text (default: found out)")
        parser.add_argument("--speed", default="1.0", help="0.5 to 2.0; 2 is twice as fast (default: %(default)s)")
        parser.add_argument("--temperature", default="0.7", help="0.1 to 1.0 (default: %(default)s)")
        parser.add_argument("--seed", help="the same seed gives the same audio on the built-in engine")
        parser.add_argument("--model-id", default="", help="of GPT-SoVITS, as the console has it")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        response_format = self.output_format(options["output"])
        text = self.read_text(options["text"])
        self.prepare_database()
        engine = configured.get_engine()
        names = ("reference_text", "reference_language", "language", "speed", "temperature", "seed", "model_id")
        data = {name: options[name] for name in names if options[name] is not None}
        data |= {"text": text, "response_format": response_format}
        path = options["reference"]
        told: list[str] = []
        with told_plainly(), ExitStack() as opened:
            if path is not None:
                data["reference_audio"] = File(opened.enter_context(path.open("rb")), name=path.name)
            serializer = SynthesizeSerializer(data=data | {"voice_id": options["voice"]})
            serializer.is_valid(raise_exception=True)
            fields = serializer.validated_data
            reference_file: Any = path
            lexicon = Lexicon()
            if path is None:
                voice = selection.find_any(options["voice"])
                chosen = selection.choose(voice, engine, fields["reference_text"], fields["reference_language"])
                lexicon = for_text(fields["text"], voice.tenant, voice_lexicon=voice.lexicon_id)
                registry.use_model_of(fields, voice.pk, voice.tenant_id)
                reference, reference_file = chosen.reference, chosen.file
            else:
                samples, rate = audio.load_reference(path, field="reference", warnings=told)
                reference = Reference(
                    samples, rate, audio.sha256_file(path), fields["reference_text"] or None,
                    fields["reference_language"],
                )  # fmt: skip
            _, warnings = check_text(fields, reference.transcript or "", reference.language, lexicon)
        for message in [*told, *(warning["message"] for warning in warnings)]:
            self.stderr.write(message)
        seed = fields.get("seed")
        job = Synthesis(
            background=True,
            voice_id=options["voice"],
            reference_hash=reference.content_hash,
            reference_text=reference.transcript or "",
            reference_language=reference.language,
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            lexicon=lexicon.as_json(),
            **{
                name: fields[name]
                for name in ("text", "language", "speed", "temperature", "model_id", "response_format")
            },
        )
        try:
            self.work(job, {"reference_audio": reference_file}, "audio", tasks.run, options["output"])
        finally:
            configured.close_engine()
        seconds = f"{job.duration_seconds:.1f} s of {response_format} by {job.engine}, seed {job.seed}"
        self.stdout.write(f"{options['output']}: {seconds}")

    @staticmethod
    def read_text(text: str) -> str:
        return sys.stdin.read() if text == "-" else text
