"""`manage.py cover SONG --reference FILE -o OUT.wav`: a song sung in the voice of a recording."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.core.files import File

from covers import commands, pipeline
from covers.models import CoverJob
from covers.serializers import RESULT_FORMATS, CreateCoverSerializer
from voiceproject.media import audio
from voiceproject.operations.terminal import JobCommand, existing_file, told_plainly
from voiceproject.web.names import joined_title
from voiceproject.web.uploads import clean_title
from voices.library import selection


class Command(JobCommand):
    help = "Makes a cover of a song in the voice of a recording. Needs no server; Ctrl-C cancels."
    formats = RESULT_FORMATS

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("song", type=existing_file, help="wav, mp3, flac, ogg/opus, m4a/aac or webm")
        self.add_voice(parser)
        parser.add_argument(
            "--pitch", default="0", help="semitones, -24 to 24, or auto (default: %(default)s); as --pitch=-3"
        )
        parser.add_argument("--preview-seconds", help="only the most vocal stretch of 10 to 60 s")
        parser.add_argument("--vocals", action="store_true", help="the song is a bare voice")
        parser.add_argument("--instrumental", type=existing_file, help="with --vocals: the accompaniment to mix with")
        choices = ("fail", "keep", "convert")
        parser.add_argument("--on-no-vocals", choices=choices, default="fail", help="where nobody sings")
        parser.add_argument(
            "--shift-instrumental", action="store_true", help="the accompaniment follows the melody's key"
        )
        parser.add_argument("--vocal-gain-db", default="0")
        parser.add_argument("--instrumental-gain-db", default="0")
        parser.add_argument("--model-id", default="", help="of the cover engine, as the console has it")
        parser.add_argument("--lyrics", type=existing_file, help="a text file, where the engine makes use of one")
        parser.add_argument("--reference-text", default="", help="what is said in the reference, likewise")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        response_format = self.output_format(options["output"])
        song, reference = options["song"], options["reference"]
        self.prepare_database()
        own = options["instrumental"]
        names = ("on_no_vocals", "shift_instrumental", "preview_seconds", "vocal_gain_db", "instrumental_gain_db",
                 "model_id", "reference_text")  # fmt: skip
        data = {name: options[name] for name in names if options[name] is not None}
        data |= {
            "voice_id": options["voice"],
            "pitch_shift": options["pitch"],
            "lyrics": options["lyrics"].read_text(encoding="utf-8") if options["lyrics"] else "",
            "input_kind": "vocals" if options["vocals"] else "mix",
            "response_format": response_format,
        }
        with told_plainly(), ExitStack() as opened:
            data["song"] = File(opened.enter_context(song.open("rb")), name=song.name)
            if own is not None:
                data["instrumental"] = File(opened.enter_context(own.open("rb")), name=own.name)
            if reference is not None:
                data["reference_voice"] = File(opened.enter_context(reference.open("rb")), name=reference.name)
            serializer = CreateCoverSerializer(data=data)
            serializer.is_valid(raise_exception=True)
            fields = serializer.validated_data
            voice = None
            if reference is None:
                voice = selection.find_any(options["voice"])
                reference = voice.reference
                if not fields["reference_text"] and "reference_text_file" in commands.template("infer").placeholders:
                    fields["reference_text"] = voice.reference_transcript
            else:
                audio.load_reference(reference, field="reference")
            limit = settings.COVER_MAX_DURATION_SECONDS
            files = [("song", song), *([("instrumental", own)] if own else [])]
            lengths = [audio.decode_song(path, None, field=name, max_seconds=limit) for name, path in files]
        named = [clean_title(song.name), voice.name if voice is not None else ""]
        for name in ("song", "instrumental", "reference_voice", "callback_url"):
            fields.pop(name, None)
        fields["pitch_auto"] = fields["pitch_shift"] is None
        job = CoverJob(
            title=joined_title(*named),
            song_hash=audio.sha256_file(song),
            duration_seconds=max(info.duration_seconds for info in lengths),
            **fields,
        )
        result = "result" if response_format == "wav" else f"result_{response_format}"
        try:
            sources = {"song": song, "reference_voice": reference} | ({"own_instrumental": own} if own else {})
            self.work(job, sources, result, pipeline.run, options["output"])
        finally:
            if settings.COVER_RESIDENT:
                commands.residents().close()
        if job.warning:
            self.stderr.write(self.style.WARNING(job.warning))
        self.stdout.write(f"{options['output']}: {job.duration_seconds:.1f} s of {response_format}")
