"""Files as encoders, phones, browsers and download tools make them: each is decoded to its end, and in its place."""

from __future__ import annotations

import random
import time
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
import soxr
from scipy.signal import correlate

from tests.support.recordings.audio_files import Samples, tone
from tests.support.recordings.ffmpeg import ffmpeg
from voiceproject.errors import PublicError
from voiceproject.media import audio

RATE = 48_000
CLICK_SECONDS = 1.0
# name -> how ffmpeg makes it; all of 3 s, with a click at 1.000 s
ENCODED = {
    "cbr.mp3": "-c:a libmp3lame -b:a 128k", "abr.mp3": "-c:a libmp3lame -abr 1 -b:a 96k",
    "vbr.mp3": "-c:a libmp3lame -q:a 2", "no-xing.mp3": "-c:a libmp3lame -q:a 2 -write_xing 0",
    "vorbis.ogg": "-c:a libvorbis", "opus.ogg": "-c:a libopus", "telegram.oga": "-c:a libopus -b:a 24k -ac 1",
    "flac.oga": "-c:a flac", "speex.ogg": "-c:a libspeex -ar 16000 -ac 1", "plain.flac": "-c:a flac",
    "aac.m4a": "-c:a aac", "alac.m4a": "-c:a alac", "adts.aac": "-c:a aac", "aac.mov": "-c:a aac",
    "fragmented.mp4": "-c:a aac -movflags frag_keyframe+empty_moov -frag_duration 500000",
    "faststart.m4a": "-c:a aac -movflags faststart", "pcm.mov": "-c:a pcm_s16le", "mp3.mp4": "-c:a libmp3lame -f mp4",
    "opus.mp4": "-c:a libopus", "opus.webm": "-c:a libopus", "vorbis.webm": "-c:a libvorbis",
    "live.webm": "-c:a libopus -live 1", "aac.mka": "-c:a aac", "mp3.mkv": "-c:a libmp3lame", "ac3.mkv": "-c:a ac3",
    "pcm.caf": "-c:a pcm_s16be", "alac.caf": "-c:a alac", "pcm.aiff": "-c:a pcm_s16be", "float.aifc":
    "-c:a pcm_f32be -f aiff", "v2.wma": "-c:a wmav2", "v1.wma": "-c:a wmav1", "plain.wv": "-c:a wavpack",
    "plain.tta": "-c:a tta", "plain.ac3": "-c:a ac3", "plain.eac3": "-c:a eac3", "plain.au": "-c:a pcm_s16be",
    "mulaw.au": "-c:a pcm_mulaw -ar 8000", "adpcm.wav": "-c:a adpcm_ms", "ima.wav": "-c:a adpcm_ima_wav",
    "mulaw.wav": "-c:a pcm_mulaw", "alaw.wav": "-c:a pcm_alaw", "8.wav": "-c:a pcm_u8", "24.wav": "-c:a pcm_s24le",
    "32.wav": "-c:a pcm_s32le", "float32.wav": "-c:a pcm_f32le", "float64.wav": "-c:a pcm_f64le",
    "rf64.wav": "-c:a pcm_s16le -rf64 always", "plain.w64": "-c:a pcm_s16le", "mp3.wav": "-c:a libmp3lame",
    "5.1.wav": "-af pan=5.1|FC=c0 -c:a pcm_s16le", "5.1.m4a": "-af pan=5.1|FC=c0 -c:a aac",
    "5.1.ac3": "-af pan=5.1|FC=c0 -c:a ac3", "7.1.wav": "-af pan=7.1|FC=c0 -c:a pcm_s16le",
    "7.1.wv": "-af pan=7.1|FC=c0 -c:a wavpack", "7.1.m4a": "-af pan=7.1|FC=c0 -c:a aac",
}  # fmt: skip
# What differs where it is written to something that cannot seek: ffmpeg's name of the format.
PIPED = {
    "no-xing.mp3": "mp3", "8.wav": "wav", "plain.w64": "w64", "pcm.aiff": "aiff", "pcm.caf": "caf", "plain.au": "au",
    "plain.flac": "flac", "v2.wma": "asf", "opus.webm": "webm",
}  # fmt: skip


def click() -> Samples:
    """3 s of a soft tone with a short burst at CLICK_SECONDS, (n,)."""
    samples = tone(3, RATE, 220, 0.1)
    burst = np.hanning(480) * np.sin(2 * np.pi * 1000 * np.arange(480) / RATE)
    at = round(CLICK_SECONDS * RATE)
    samples[at : at + 480] += 0.7 * burst.astype(np.float32)
    return samples


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each of ENCODED, `piped-` ones, and source.wav."""
    folder = tmp_path_factory.mktemp("made")
    sf.write(folder / "source.wav", np.stack([click()] * 2, axis=1), RATE, subtype="PCM_16")
    arguments = ["-i", "source.wav"]
    for name, options in ENCODED.items():
        arguments += [*options.split(), name]
    ffmpeg(folder, *arguments)
    for name, format in PIPED.items():
        how = ENCODED[name].split()
        (folder / f"piped-{name}").write_bytes(ffmpeg(folder, "-i", "source.wav", *how, "-f", format, "pipe:1"))
    # No ffmpeg of Debian encodes AMR; PyAV's does.
    for name, format in (("voice.amr", "amr"), ("phone.3gp", "3gp")):
        with av.open(str(folder / name), "w", format=format) as out:
            stream = out.add_stream("libopencore_amrnb", rate=8000, layout="mono")
            stream.bit_rate = 12_200
            samples = np.rint(soxr.resample(click(), RATE, 8000) * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                out.mux(packet)
    return folder


def decoded(path: Path, max_seconds: float = 480) -> tuple[Samples, audio.AudioInfo]:
    """(n, 2) at 44.1 kHz."""
    wav = path.with_name("decoded.wav")
    info = audio.decode_song(path, wav, field="song", max_seconds=max_seconds)
    return sf.read(wav, dtype="float32", always_2d=True)[0], info


def click_at(samples: Samples, near: float = CLICK_SECONDS) -> float:
    """Where the click is, in s, by what fits best within 0.3 s."""
    rate = 44_100
    sent = soxr.resample(click(), RATE, rate)[round(0.9 * rate) : round(1.1 * rate)]
    start = round((near - 0.4) * rate)
    found = correlate(samples[start : round((near + 0.4) * rate)], sent, "valid")
    return (start + int(np.argmax(found))) / rate + 0.1


def test_every_format_has_its_length_and_its_click_in_its_place(made: Path) -> None:
    for name in [*ENCODED, *(f"piped-{name}" for name in PIPED), "voice.amr", "phone.3gp"]:
        samples, info = decoded(made / name)
        # Formats without a place for it keep the filling of the last frame, 2048 samples at most.
        assert 2.97 < info.duration_seconds < 3.08, (name, info)
        assert click_at(samples[:, 0]) == pytest.approx(CLICK_SECONDS, abs=0.005), name
        assert np.abs(samples).max() > 0.3, name
        assert not info.warnings, (name, info)


def silent_tag(size: int) -> bytes:
    """ID3v2.4 of `size` bytes of a picture's noise."""
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + length + random.Random(1).randbytes(size)


def ape_tag(size: int) -> bytes:
    def part(flags: int) -> bytes:
        return (
            b"APETAGEX"
            + (2000).to_bytes(4, "little")
            + (size + 32).to_bytes(4, "little")
            + bytes([1, 0, 0, 0, 0, 0, 0, flags])
            + bytes(8)
        )

    return part(0xA0) + random.Random(2).randbytes(size) + part(0x80)


def with_frames(mp3: bytes, factor: float) -> bytes:
    """Its Xing header claims so many times as many frames."""
    at = mp3.index(b"Xing") + 8
    frames = int.from_bytes(mp3[at : at + 4], "big")
    return mp3[:at] + round(frames * factor).to_bytes(4, "big") + mp3[at + 4 :]


def test_what_tools_and_accidents_make_of_files_is_decoded_whole(made: Path) -> None:
    noise = random.Random(3).randbytes
    bare, vbr = (made / "no-xing.mp3").read_bytes(), (made / "vbr.mp3").read_bytes()
    frames = vbr[vbr.index(b"\xff\xfb") :]
    wav = (made / "source.wav").read_bytes()
    at = wav.index(b"data") + 4

    def sized(size: int) -> bytes:
        return wav[:at] + size.to_bytes(4, "little") + wav[at + 4 :]

    cases: dict[str, tuple[bytes, float, str]] = {
        "junk in front": (noise(5000) + bare, 3, ""),
        "zeros in front": (bytes(100_000) + bare, 3, ""),
        "cut at the front": (bare[500:], 2.95, ""),
        "junk behind the tag": (silent_tag(2000) + noise(3000) + frames, 3, ""),
        "a huge cover": (silent_tag(2 * 2**20) + frames, 3, ""),
        "all tags": (silent_tag(500) + frames + ape_tag(5000) + b"TAG" + bytes(125), 3, ""),
        "no frames by its header": (with_frames(vbr, 0), 3, ""),
        "half the frames by its header": (with_frames(vbr, 0.5), 3, ""),
        "twice the frames by its header": (with_frames(vbr, 2), 3, "should be"),
        "joined mp3": (bare + bare, 6, "damaged"),
        "joined mp3 with tags": (silent_tag(3000) + vbr + silent_tag(3000) + vbr, 6, "damaged"),
        "joined aac": (2 * (made / "adts.aac").read_bytes(), 6, ""),
        "joined flac": (2 * (made / "plain.flac").read_bytes(), 6, ""),
        "joined webm": (2 * (made / "opus.webm").read_bytes(), 6, ""),
        "chained vorbis": (2 * (made / "vorbis.ogg").read_bytes(), 6, ""),
        "chained opus": (2 * (made / "opus.ogg").read_bytes(), 6, ""),
        "wav of size 0": (sized(0), 3, ""),
        "wav of size 0xFFFFFFFF": (sized(0xFFFFFFFF), 3, ""),
        "wav of a third of its size": (sized(200_000), 3, ""),
        "wav of thrice its size": (sized(3 * 576_000), 3, "should be 9.00 s"),
        "a list behind the samples": (wav + b"LIST\x04\0\0\0INFO", 3, ""),
        "odd chunks": (wav[:12] + b"junk\x03\0\0\0abc\0" + wav[12:] + b"LIST\x05\0\0\0INFOxbext\x04\0\0\0abcd", 3, ""),
        "joined wav": (wav + wav, 6, ""),
    }
    for name, (content, seconds, told) in cases.items():
        (made / "case").write_bytes(content)
        samples, info = decoded(made / "case")
        assert info.duration_seconds == pytest.approx(seconds, abs=0.08), (name, info)
        assert told in " ".join(info.warnings), (name, info)
        assert bool(told) == bool(info.warnings), (name, info)
        if name != "cut at the front":
            for number in range(round(seconds / 3)):
                expected = CLICK_SECONDS + 3 * number
                # Where files are joined, the filling of the one and the delay of the other stay.
                within = 0.005 if number == 0 else 0.08
                assert click_at(samples[:, 0], expected) == pytest.approx(expected, abs=within), (name, number)


def with_open_bit_rate(mp3: bytes) -> bytes:
    """The same frames, of 417 or 418 bytes each, as one of free format."""
    frames = bytearray(mp3)
    at = 0
    while at + 4 <= len(frames):
        length = 417 + (frames[at + 2] >> 1 & 1)
        frames[at + 2] &= 0x0F
        at += length
    return bytes(frames)


def test_an_mp3_of_free_format_is_refused_by_its_name(made: Path) -> None:
    arguments = "-i source.wav -ar 44100 -c:a libmp3lame -b:a 128k -write_xing 0 -id3v2_version 0 -f mp3 pipe:1"
    free = with_open_bit_rate(ffmpeg(made, *arguments.split()))
    for content in (free, silent_tag(3000) + free):
        (made / "case").write_bytes(content)
        with pytest.raises(PublicError) as error:
            decoded(made / "case")
        assert error.value.details["reason"] == "unsupported_format"
        assert "free format" in error.value.details["found"]


CHAINED = {
    "vorbis 44": "-c:a libvorbis -ar 44100", "vorbis 48": "-c:a libvorbis -ar 48000",
    "vorbis mono": "-af pan=mono|c0=c0 -c:a libvorbis", "opus": "-c:a libopus", "opus mono": "-c:a libopus -ac 1",
    "flac 44": "-c:a flac -ar 44100", "flac 48": "-c:a flac", "speex": "-c:a libspeex -ar 16000 -ac 1",
}  # fmt: skip


def test_a_chained_ogg_whose_parts_differ_is_taken_whole(made: Path) -> None:
    """Each part has its length, its click in its place and its level, whatever the one before it was."""
    files = {
        name: ffmpeg(made, "-i", "source.wav", *how.split(), "-f", "ogg", "pipe:1") for name, how in CHAINED.items()
    }
    sent = np.std(click()[round(1.5 * RATE) : round(2.5 * RATE)])
    names = list(files)
    chains = [names, names[::-1], ["opus", "vorbis 44", "opus"], ["vorbis mono", "vorbis 44"]]
    for chain in chains:
        (made / "case").write_bytes(b"".join(files[name] for name in chain))
        samples, info = decoded(made / "case")
        assert info.duration_seconds == pytest.approx(3 * len(chain), abs=0.012 * len(chain)), chain
        for number, name in enumerate(chain):
            expected = CLICK_SECONDS + 3 * number
            assert click_at(samples[:, 0], expected) == pytest.approx(expected, abs=0.012 * (number + 1)), (chain, name)
            for side in (0, 1):
                level = np.std(samples[round((expected + 0.5) * 44_100) : round((expected + 1.5) * 44_100), side])
                assert level == pytest.approx(sent, rel=0.06), (chain, name, side)
        (told,) = info.warnings
        assert "song changes to " in told, told
        assert "after 3.0" in told or "after 2.99" in told, told


def test_a_joined_mp3_or_aac_whose_rate_changes_is_taken_whole(made: Path) -> None:
    for codec, format in (("libmp3lame", "mp3"), ("aac", "adts")):
        rates = [
            ffmpeg(made, "-i", "source.wav", "-ar", str(rate), "-c:a", codec, "-b:a", "128k", "-f", format, "pipe:1")
            for rate in (44_100, 48_000)
        ]
        (made / "case").write_bytes(b"".join(rates))
        samples, info = decoded(made / "case")
        assert info.duration_seconds == pytest.approx(6, abs=0.15), codec
        for number in (0, 1):
            expected = CLICK_SECONDS + 3 * number
            assert click_at(samples[:, 0], expected) == pytest.approx(expected, abs=0.08), codec
        assert "song changes to 48000 Hz, 2 channels after 3.0" in " ".join(info.warnings), info


def test_a_part_of_a_chain_that_breaks_off_is_told_and_the_last_one_refused(made: Path) -> None:
    whole, other = (made / "vorbis.ogg").read_bytes(), (made / "opus.ogg").read_bytes()
    (made / "case").write_bytes(whole[:-100] + other)
    _, info = decoded(made / "case")
    assert 5 < info.duration_seconds < 6
    assert "song has parts that break off before their end." in info.warnings
    (made / "case").write_bytes(whole + other[:-100])
    with pytest.raises(PublicError) as error:
        decoded(made / "case")
    assert error.value.details["reason"] == "truncated"


@pytest.mark.parametrize("name", ["vorbis.ogg", "opus.ogg", "flac.oga"])
def test_what_lies_behind_the_last_page_of_an_ogg_does_not_make_it_longer(made: Path, name: str) -> None:
    ogg, noise = (made / name).read_bytes(), random.Random(3).randbytes
    for behind in (b"TAG" + bytes(125), noise(3000), bytes(300_000), bytes(3_000_000)):
        (made / "case").write_bytes(ogg + behind)
        samples, info = decoded(made / "case")
        assert (info.duration_seconds, info.warnings) == (pytest.approx(3, abs=0.01), ()), len(behind)
        assert click_at(samples[:, 0], CLICK_SECONDS) == pytest.approx(CLICK_SECONDS, abs=0.005)
    for content in (ogg + noise(300_000), ogg + noise(5000), ogg + noise(300_000) + ogg):
        (made / "case").write_bytes(content)
        with pytest.raises(PublicError) as error:
            decoded(made / "case")
        assert error.value.details["reason"] == "truncated"
        assert "bytes that could not be decoded" in error.value.details["found"]


def test_104_megabytes_of_tags_take_no_time(made: Path) -> None:
    frames = (made / "no-xing.mp3").read_bytes()
    size = 104 * 10**6
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    started = time.process_time()
    (made / "case").write_bytes(b"ID3\x04\x00\x00" + length + bytes(size) + frames)
    assert decoded(made / "case")[1].duration_seconds == pytest.approx(3, abs=0.08)
    (made / "case").write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x00" * (size // 10) + frames)
    with pytest.raises(PublicError) as error:
        decoded(made / "case")
    assert error.value.details["reason"] == "corrupt"
    assert time.process_time() - started < 3  # 14 s, once.
    (made / "case").unlink()


def test_a_file_of_two_containers_is_refused_and_never_half_taken(made: Path) -> None:
    for name in ("aac.m4a", "v2.wma", "pcm.aiff", "pcm.caf", "plain.tta", "plain.wv"):
        (made / "case").write_bytes(2 * (made / name).read_bytes())
        with pytest.raises(PublicError) as error:
            decoded(made / "case")
        assert error.value.details["reason"] == "truncated", name
        assert "3.0" in error.value.message, (name, error.value.message)


def test_a_file_of_which_a_part_is_missing_says_how_much_was_found(made: Path) -> None:
    names = ["source.wav", "adpcm.wav", "float32.wav", "plain.w64", "pcm.aiff", "pcm.caf", "plain.au", "vbr.mp3",
             "vorbis.ogg", "opus.ogg", "plain.flac", "faststart.m4a", "fragmented.mp4", "opus.webm", "adts.aac",
             "v2.wma", "plain.wv", "plain.tta"]  # fmt: skip
    for name in names:
        whole = (made / name).read_bytes()
        for missing in (1, 10, 50, 99):
            (made / "case").write_bytes(whole[: len(whole) * (100 - missing) // 100])
            try:
                samples, info = decoded(made / "case")
            except PublicError as error:
                assert error.code == "invalid_audio", (name, missing)
                assert error.details["reason"] in ("truncated", "too_short", "empty", "corrupt"), (name, missing)
                if missing < 99:
                    assert " s" in error.message, (name, missing, error.message)
            else:
                assert info.warnings, (name, missing)
                assert f"{len(samples) / 44_100:.2f} s" in " ".join(info.warnings), (name, missing, info)
                assert info.duration_seconds < 3 * (101 - missing) / 100 + 0.1, (name, missing)


def test_audio_that_begins_late_in_its_container_begins_with_silence(made: Path) -> None:
    late = ["-itsoffset", "2.5", "-i", "source.wav"]
    picture = ["-f", "lavfi", "-i", "testsrc=duration=6:size=32x32:rate=5"]
    ffmpeg(made, *late, "-c:a", "aac", "late.m4a", "-c:a", "libopus", "late.webm", "-c:a", "flac", "late.mka")
    ffmpeg(made, *picture, *late, "-map", "0:v", "-map", "1:a", "-c:v", "mpeg4", "-c:a", "aac", "film.mp4")
    for name in ("late.m4a", "late.webm", "late.mka", "film.mp4"):
        samples, info = decoded(made / name)
        assert info.duration_seconds == pytest.approx(5.5, abs=0.03), name
        assert click_at(samples[:, 0], 3.5) == pytest.approx(3.5, abs=0.01), name
        assert np.abs(samples[: 2 * 44_100]).max() < 1e-3, name


def test_the_default_one_of_two_tracks_is_taken_and_told(made: Path) -> None:
    for name in ("two.mp4", "two.mkv"):
        ffmpeg(
            made, "-f", "lavfi", "-i", "sine=frequency=3000:duration=3", "-i", "source.wav", "-map", "0", "-map", "1",
            "-c:a", "aac", "-disposition:a:0", "0", "-disposition:a:1", "default", name,
        )  # fmt: skip
        samples, info = decoded(made / name)
        assert click_at(samples[:, 0]) == pytest.approx(CLICK_SECONDS, abs=0.005)
        assert info.warnings == ("song has 2 audio tracks; number 2, the default one, was taken.",)


def test_sides_and_offsets_are_as_they_are_heard(made: Path) -> None:
    """Each channel alone is heard where its layout has it; a constant offset is not heard at all."""
    names = ["FL", "FR", "FC", "LFE", "BL", "BR"]
    heard = {"FL": (1, 0), "FR": (0, 1), "FC": (0.707, 0.707), "LFE": (0, 0), "BL": (0.707, 0), "BR": (0, 0.707)}
    for number, name in enumerate(names):
        channels = np.zeros((3 * RATE, 6), np.float32)
        channels[:, number] = tone(3, RATE, 440, 0.5)
        channels[:, 2] += tone(3, RATE, 1000, 0.01)  # Or the deep one alone would be silence.
        sf.write(made / "channels.wav", channels, RATE, subtype="PCM_16")
        samples, info = decoded(made / "channels.wav")
        level = np.sqrt(2) * np.sqrt(np.mean(np.square(samples[4410:-4410]), axis=0)) / 0.5
        assert level == pytest.approx(heard[name], abs=0.02), name
        assert info.channels == 6
    left = np.stack([click(), np.zeros(3 * RATE, np.float32)], axis=1)
    sf.write(made / "left.wav", left + 0.3, RATE, subtype="PCM_16")
    samples, _ = decoded(made / "left.wav")
    assert np.abs(samples[441:-441, 1]).max() < 1e-3
    assert np.abs(samples.mean(axis=0)).max() < 1e-3
    assert click_at(samples[:, 0]) == pytest.approx(CLICK_SECONDS, abs=0.005)


def test_limits_have_half_a_second_of_grace_and_an_hour_is_refused_by_its_header(made: Path) -> None:
    for seconds, taken in ((480.4, True), (480.5, True), (480.51, False), (481.0, False)):
        with wave.open(str(made / "long.wav"), "wb") as file:
            file.setparams((1, 1, 4000, 0, "NONE", ""))
            file.writeframes(bytes(range(0, 256, 16)) * round(seconds * 4000 / 16 + 1))
        content = (made / "long.wav").read_bytes()[: 44 + round(seconds * 4000)]
        size = len(content) - 44
        (made / "long.wav").write_bytes(content[:40] + size.to_bytes(4, "little") + content[44:])
        if taken:
            info = audio.decode_song(made / "long.wav", None, field="song", max_seconds=480)
            assert info.duration_seconds == pytest.approx(seconds, abs=1e-3)
            continue
        with pytest.raises(PublicError) as error:
            audio.decode_song(made / "long.wav", None, field="song", max_seconds=480)
        assert error.value.details["reason"] == "too_long"
    ffmpeg(
        made, "-f", "lavfi", "-i", "color=duration=3600:size=16x16:rate=1", "-f", "lavfi", "-i",
        "anullsrc=sample_rate=8000:channel_layout=mono:duration=3600", "-shortest", "-c:v", "mpeg4", "-c:a", "flac",
        "hour.mkv",
    )  # fmt: skip
    with pytest.raises(PublicError) as error:
        audio.decode_song(made / "hour.mkv", None, field="song", max_seconds=480)
    assert error.value.details["reason"] == "too_long"
    assert error.value.details["found"] == pytest.approx(3600, abs=2)
