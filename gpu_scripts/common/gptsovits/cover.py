"""One vocal sung again by GPT-SoVITS: the words found, spoken, aligned with the vocal, and made to sing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import audio, foreign, recognition, script_io, sung_speech
from common.calls import told_by_calls
from common.recognition import Recogniser
from common.script_io import Progress, ScriptError
from common.sung_speech import Frames, Phrase, Song, Span, Take, lyrics

from .references import best_reference, reference_seconds, store_reference
from .runtime import Runtime

Float32 = NDArray[np.float32]

REFERENCE_SECONDS = 60.0  # of which the best 10 are looked for
RECOGNISED_LANGUAGES = {"zh": "zh", "en": "en", "ja": "ja", "yue": "yue", "ko": "ko"}
SPEEDS = (0.5, 1.8)
MARGIN = 0.05  # of the cost: see Song.margin
HOARSE = 0.6

# What stays from job to job in a process that serves: loading takes longer than singing a short song.
_runtimes: dict[tuple[str, str, bool], Runtime] = {}
_recognisers: dict[tuple[str, str, bool], Recogniser] = {}


class Cover:
    """One vocal to be sung."""

    def __init__(self, arguments: Any) -> None:
        self.arguments = arguments
        self.progress = Progress()
        self.is_half: bool = arguments.is_half
        self.guessed = False  # whether the times of the phrases come from the vocal's pauses alone

    def make(self) -> None:
        """Raises ScriptError."""
        arguments, progress = self.arguments, self.progress
        progress(0)
        vocal, rate, channels = audio.read_mono(arguments.input)
        length = round(len(vocal) * sung_speech.OUTPUT_RATE / rate)
        reference, reference_rate = best_reference(*audio.read_mono(arguments.reference, REFERENCE_SECONDS)[:2])
        whole = len(reference) / reference_rate >= reference_seconds(arguments.reference) - 0.1
        self.runtime = self.load_runtime()
        weights = self.runtime.catalogue.find(arguments.model_id, arguments.gpt_weights, arguments.sovits_weights)
        lines, recogniser = self.words_from()
        progress(0.02)
        try:
            source = sung_speech.analyze(vocal, rate, lambda done: progress(0.02 + 0.18 * done))
        except sung_speech.Unsingable as error:
            raise ScriptError(script_io.SILENT, str(error)) from error
        phrases, language = self.phrases(lines, recogniser, vocal, rate, source)
        progress(0.25)
        song = self.song(source, phrases)
        with tempfile.TemporaryDirectory(prefix="gptsovits-infer-") as folder:
            path = store_reference(reference, reference_rate, Path(folder))
            text, prompt_language = self.prompt(reference, reference_rate, whole, recogniser)
            self.runtime.load(weights)
            song = self.speak(song, language, path, text, prompt_language)

        def locate(phrase: Phrase, take: Take) -> tuple[Span | None, ...]:
            if recogniser is None:
                return ()
            heard, _ = recogniser.hear(sung_speech.resample(take.samples, take.rate, sung_speech.RATE))
            return lyrics.spans(recognition.units(phrase.text), heard)

        try:
            if self.guessed and len(song.windows) > 1:
                song.improve_borders(lambda done: progress(0.72 + 0.03 * done))
            song.align(lambda done: progress(0.75 + 0.1 * done), locate)
        except sung_speech.Unsingable as error:
            raise ScriptError(script_io.SILENT, str(error)) from error
        self.warn_of(song)
        out = np.zeros(length, np.float32)
        for number, window in enumerate(song.windows):
            first, last = (round(frame * sung_speech.FRAME_SECONDS * rate) for frame in (window.start, window.stop))
            loudness = float(np.sqrt(np.mean(np.square(vocal[first:last], dtype=np.float64))))
            sung_speech.place(out, window, *sung_speech.render(window, source, arguments.pitch), loudness)
            window.takes.clear()
            progress(0.85 + 0.13 * (number + 1) / len(song.windows))
        audio.write(arguments.output, out, channels)
        progress(1)

    # --- what is needed ---

    def load_runtime(self) -> Runtime:
        key = (str(self.arguments.project_root), self.arguments.device, self.is_half)
        if key not in _runtimes or _runtimes[key].broken:
            _runtimes.clear()
            _runtimes[key] = Runtime(*key)
        return _runtimes[key]

    def words_from(self) -> tuple[list[str], Recogniser | None]:
        """(the lines of the lyrics, the recogniser). Raises ScriptError: 13 where there is neither; 2, 13 where a
        recogniser is named and cannot be had, whatever the lyrics."""
        arguments = self.arguments
        lines = lyrics.lines_of(arguments.lyrics)
        if arguments.lyrics and not lines:
            script_io.warn("There are no words in the lyrics; they are left aside.")
        try:
            folder = recognition.find_model(arguments.asr_model, arguments.project_root)
            if folder is None:
                where = arguments.project_root / recognition.WHERE_THE_ENGINE_KEEPS_MODELS
                raise ScriptError(script_io.NO_LYRICS, f"there is no faster-whisper model in {where}")
            key = (str(folder), arguments.device, self.is_half)
            if key not in _recognisers:
                _recognisers.clear()
                _recognisers[key] = Recogniser(folder, arguments.device, self.is_half)
            return lines, _recognisers[key]
        except ScriptError as error:
            if not lines or arguments.asr_model or error.exit_code != script_io.NO_LYRICS:
                if error.exit_code == script_io.NO_LYRICS and not lines:
                    raise ScriptError(
                        script_io.NO_LYRICS, f"no lyrics were given, and without a recogniser nothing is known: {error}"
                    ) from error
                raise
            script_io.warn(
                "There is no speech recogniser here: the lyrics were laid on the vocal by its pauses. "
                "Words may be early or late, and a line that is not sung moves the others."
            )
            return lines, None

    def phrases(
        self, lines: list[str], recogniser: Recogniser | None, vocal: Float32, rate: int, source: Frames
    ) -> tuple[list[Phrase], str]:
        """(what is sung and when, its language). Raises ScriptError (13)."""
        language = self.arguments.language
        if recogniser is None:
            self.guessed = True
            return lyrics.lay_out(lines, source), language
        asked = language.removeprefix("all_").removeprefix("auto_")
        heard, found = recogniser.hear(
            sung_speech.resample(vocal, rate, sung_speech.RATE),
            None if asked == "auto" else asked,
            lambda done: self.progress(0.2 + 0.05 * done),
        )
        if language == "auto" and not lines:
            if found not in RECOGNISED_LANGUAGES:
                script_io.warn(f"The words seem to be in a language that GPT-SoVITS does not speak ({found}).")
            language = RECOGNISED_LANGUAGES.get(found, "auto")
        if lines:
            phrases = lyrics.from_lyrics_and_heard(lines, heard, source)
            if phrases:
                return phrases, language
            script_io.warn(
                "The recogniser hears other words than the lyrics; they were laid on the vocal by its pauses."
            )
            self.guessed = True
            return lyrics.lay_out(lines, source), language
        phrases = lyrics.from_heard(heard, len(source) * sung_speech.FRAME_SECONDS)
        if not phrases:
            raise ScriptError(script_io.NO_LYRICS, "no lyrics were given, and no words were recognised in the vocal")
        return phrases, language

    def song(self, source: Frames, phrases: list[Phrase]) -> Song:
        """The phrases on the vocal, without those where nothing is sung. Raises ScriptError (4)."""
        left_out = 0
        while phrases:
            try:
                song = sung_speech.Song(source, phrases)
            except sung_speech.Unsingable as error:
                if error.phrase is None:
                    raise ScriptError(script_io.SILENT, str(error)) from error
                phrases = phrases[: error.phrase] + phrases[error.phrase + 1 :]
                left_out += 1
                continue
            if left_out:
                script_io.warn(f"{left_out} phrase(s) were left out: nothing is sung at their time.")
            return song
        raise ScriptError(script_io.SILENT, "nothing is sung in the vocal at the times of its words")

    def prompt(self, reference: Float32, rate: int, whole: bool, recogniser: Recogniser | None) -> tuple[str, str]:
        """(what is said in the reference, its language); ("", "auto") where that is not known."""
        text = self.arguments.reference_text
        if text and whole:
            return " ".join(text.split()), "auto"
        if recogniser is None:
            if text:
                script_io.warn("The reference was cut to 10 s, so that its text no longer fits; it was not used.")
            return "", "auto"
        heard, language = recogniser.hear(sung_speech.resample(reference, rate, sung_speech.RATE))
        return "".join(word.text for word in heard).strip(), RECOGNISED_LANGUAGES.get(language, "auto")

    # --- the work ---

    def speak(self, song: Song, language: str, reference: Path, text: str, text_language: str) -> Song:
        """Has every phrase spoken; the song of those that could be. Raises ScriptError: 7, 11, 12."""
        kept = []
        for number, window in enumerate(song.windows):
            speed, trouble = 1.0, None
            for take in range(self.arguments.takes):
                first, last = ((number + (take + more) / self.arguments.takes) / len(song.windows) for more in (0, 1))
                tell = foreign.share_of(self.progress, 0.27 + 0.45 * first, 0.27 + 0.45 * last)
                try:
                    # A long phrase takes half a minute on a CPU.
                    with told_by_calls("take", tell, max(1, len(window.phrase.text))):
                        samples, rate = self.runtime.speak(
                            window.phrase.text,
                            language,
                            reference,
                            text,
                            text_language,
                            speed=speed,
                            seed=(self.arguments.seed + 1000 * number + take) % 2**32,
                            model_id=self.arguments.model_id,
                            gpt_weights=self.arguments.gpt_weights,
                            sovits_weights=self.arguments.sovits_weights,
                        )
                    song.add(number, sung_speech.Take(samples, rate))
                except ScriptError as error:
                    if error.exit_code == script_io.UNSPEAKABLE:
                        trouble = error
                        break
                    if error.exit_code != script_io.ENGINE_FAILED or self.runtime.broken:
                        raise
                    trouble = error
                except sung_speech.Unsingable as error:
                    trouble = ScriptError(script_io.ENGINE_FAILED, str(error))
                speed = next_speed(window, take)
                tell(1)
            if window.takes:
                kept.append(window)
            elif trouble is not None and trouble.exit_code != script_io.UNSPEAKABLE:
                raise trouble
        if not kept:
            raise ScriptError(script_io.UNSPEAKABLE, "nothing of the words can be spoken")
        song.windows = kept
        return song

    def warn_of(self, song: Song) -> None:
        """Says what will not sound well, and of which phrases."""
        held = [w for w in song.windows if w.stretch > sung_speech.STRETCH_LIMIT and not sung_speech.anchored(w)]
        if held:
            script_io.warn(f"Words may come late where few are sung long: {names(held)}.")
        margins = [(window, song.margin(number)) for number, window in enumerate(song.windows)]
        doubtful = [window for window, margin in margins if margin is not None and margin < MARGIN]
        if len(doubtful) > 0.3 * len(margins):
            script_io.warn(f"Other words may be sung than these: {names(doubtful)}.")
        hoarse = [window for window in song.windows if sung_speech.voiced_share(window.spoken.frames) < HOARSE]
        if len(hoarse) > 0.3 * len(song.windows):
            script_io.warn("The voice is so hoarse that its melody may not be heard everywhere.")
        missed = sung_speech.unsung_seconds(song)
        if missed > 2:
            script_io.warn(f"{missed:.0f} s of singing have no known words and are silent.")


def names(windows: list[Any]) -> str:
    """The first three of the phrases, with their times."""
    told = [_name(window) for window in windows[:3]]
    return ", ".join(told) + (f" and {len(windows) - 3} more" if len(windows) > 3 else "")


def _name(window: Any) -> str:
    text = " ".join(window.phrase.text.split())
    return f"{text[:40]!r} at {window.start * 0.005:.0f} s"


def next_speed(window: Any, take: int) -> float:
    """How fast the phrase is spoken next: towards the length that it is sung at, but never unnaturally slow."""
    if not window.takes:
        return 1.0
    stretch = (window.stop - window.start) / len(window.takes[0].frames)
    steps = (0.85, 0.7, 1.0, 0.8, 0.9, 0.75, 1.0) if stretch > 1.15 else (1.2, 1.5, 1.35, 1.1, 1.0, 1.7, 1.3)
    return min(max(steps[take % len(steps)], SPEEDS[0]), SPEEDS[1])
