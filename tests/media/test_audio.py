"""voiceproject.media.audio: what is taken, what is refused and how, and at what cost."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.support.recordings import audio_files
from tests.support.recordings.audio_files import BAD_FILES, FORMATS, BadFile, encoded, pitch, stereo, tone, voice, write
from voiceproject.errors import PublicError
from voiceproject.media import audio, decoding

ROOT = Path(__file__).resolve().parents[2]


def refusal(error: pytest.ExceptionInfo[PublicError]) -> tuple[str, str]:
    assert error.value.status == 400
    assert set(error.value.details) >= {"field", "reason", "found"}
    json.dumps(error.value.details)
    return error.value.code, error.value.details["reason"]


def reference(path: Path) -> tuple[audio_files.Samples, int]:
    return audio.load_reference(path, field="reference_audio")


def song(path: Path, wav: Path | None, max_seconds: float = 480) -> audio.AudioInfo:
    return audio.decode_song(path, wav, field="song", max_seconds=max_seconds)


# --- what is refused


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_a_bad_file_is_refused_with_its_reason_and_leaves_nothing(bad: BadFile, tmp_path: Path) -> None:
    path = audio_files.write_bad(tmp_path / bad.name, bad)
    with pytest.raises(PublicError) as as_voice:
        reference(path)
    by_length = bad.reason in ("too_short", "too_long")
    expected = f"reference_{bad.reason}" if by_length else "invalid_audio"
    assert refusal(as_voice) == (expected, bad.reason)
    assert as_voice.value.message.startswith("reference_audio ")
    assert str(tmp_path) not in as_voice.value.message + str(as_voice.value.details)

    with pytest.raises(PublicError) as as_song:
        song(path, tmp_path / "song.decoded")
    assert refusal(as_song) == ("invalid_audio", bad.reason)
    assert os.listdir(tmp_path) == [bad.name]


def test_a_song_that_is_only_checked_is_refused_the_same_way(tmp_path: Path) -> None:
    for bad in BAD_FILES[:1] + [bad for bad in BAD_FILES if bad.reason in ("silent", "not_finite", "too_short")]:
        path = audio_files.write_bad(tmp_path / bad.name, bad)
        with pytest.raises(PublicError) as error:
            song(path, None)
        assert refusal(error) == ("invalid_audio", bad.reason)


@pytest.mark.parametrize(
    ("frames", "code"),
    [(47_999, "reference_too_short"), (48_000, None), (968_000, None), (968_001, "reference_too_long")],
)
def test_both_bounds_of_a_reference_are_inclusive_to_the_sample_and_the_upper_has_half_a_second(
    frames: int, code: str | None, tmp_path: Path
) -> None:
    samples = voice(frames / 16_000 + 0.01, 16_000)[:frames]
    for format in ("wav", "flac"):
        path = write(tmp_path / "voice", samples, 16_000, format)
        if code is None:
            assert len(reference(path)[0]) == frames
        else:
            with pytest.raises(PublicError) as error:
                reference(path)
            assert error.value.code == code
            assert error.value.details["minimum"] == 3.0
            assert error.value.details["maximum"] == 60.0


@pytest.mark.parametrize("format", ["wav", "webm", "aac"])
def test_a_song_over_its_bound_is_too_long_whatever_its_header_tells(format: str, tmp_path: Path) -> None:
    path = write(tmp_path / "song", tone(6, 48_000), 48_000, format)
    with pytest.raises(PublicError) as error:
        song(path, tmp_path / "out.wav", max_seconds=4)
    assert refusal(error) == ("invalid_audio", "too_long")
    assert not (tmp_path / "out.wav").exists()


def test_a_message_says_what_was_found_and_what_to_send(tmp_path: Path) -> None:
    with pytest.raises(PublicError) as error:
        reference(write(tmp_path / "short", voice(2.1, 16_000), 16_000))
    assert error.value.message == "reference_audio is 2.10 s long; send 3 to 60 s of speech."


def test_random_damage_never_gives_anything_but_audio_or_a_refusal(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    path = tmp_path / "damaged"
    for format in ("wav", "flac", "mp3", "vorbis", "opus"):
        good = encoded(voice(4, 48_000), 48_000, format)
        for _ in range(40):
            data = bytearray(good)
            for at in random.integers(0, min(len(data), 400 if random.random() < 0.5 else 10**9), 8):
                data[at] = random.integers(256)
            path.write_bytes(data)
            try:
                samples, rate = reference(path)
            except PublicError as error:
                assert error.status == 400, format
            else:
                assert np.isfinite(samples).all()
                assert 3 <= len(samples) / rate <= 60


def test_damaged_containers_are_refused_or_decoded_by_a_child_that_ends(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    path = tmp_path / "damaged"
    for format in ("m4a", "webm", "aac"):
        good = encoded(voice(4, 48_000), 48_000, format)
        for _ in range(6):
            data = bytearray(good)
            for at in random.integers(0, len(data), 30):
                data[at] = random.integers(256)
            path.write_bytes(data)
            try:
                samples, _ = reference(path)
            except PublicError as error:
                assert error.status == 400, format
            else:
                assert np.isfinite(samples).all()


# --- no file but the one that was sent


@pytest.mark.parametrize("kind", ["url", "alias"])
def test_an_mp4_that_points_elsewhere_never_reads_what_it_points_at(kind: str, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.m4a", tone(5, 16_000, 1000), 16_000, "m4a")
    own = encoded(tone(5, 16_000, 200), 16_000, "m4a")
    if kind == "url":
        data = audio_files.with_external_data(own, f"file://{secret}")
    else:
        data = audio_files.with_alias(own, str(secret))
    path = tmp_path / "song.m4a"
    path.write_bytes(data)
    try:
        samples, rate = reference(path)
    except PublicError as error:
        assert error.code == "invalid_audio"
    else:
        assert pitch(samples, rate) == pytest.approx(200, abs=1)


# A server of decoders whose processes do something else.
PRETENDER = (
    "import json, mmap, os, signal, struct, sys, time\n"
    "from importlib.util import module_from_spec, spec_from_file_location as at\n"
    f"spec = at('server', {str(ROOT / 'voiceproject' / 'media' / 'decoder_server.py')!r})\n"
    "server = module_from_spec(spec); spec.loader.exec_module(server)\n"
    "_, _, decoder = server.imported()\n"
    "server.imported = lambda: (None, None, decoder)\n"
    "part = decoder.Output(None).part\n"
    "header = {'sample_rate': 48000, 'channels': 1, 'upload_channels': 1, 'codec': 'aac'}\n"
)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Has uploads decoded by a program: what a process does, and what the server does before."""
    server = decoding.Server()

    def use(decode: str, before: str = "") -> None:
        body = "\n".join("    " + line for line in decode.splitlines())
        program = f"{PRETENDER}{before}\ndef decode(*_):\n{body}\ndecoder.decode = decode\nserver.main()\n"
        monkeypatch.setattr(decoding, "COMMAND", [sys.executable, "-I", "-c", program])
        monkeypatch.setattr(decoding, "server", server)

    yield use
    server.close()


def test_the_decoder_process_can_open_nothing_once_it_decodes(
    tmp_path: Path, pretend: Callable[[str, str], None]
) -> None:
    pretend(
        "told = []\n"
        "for attempt in (lambda: open('/etc/hostname'), __import__('socket').socket, lambda: os.dup(0)):\n"
        "    try: attempt()\n"
        "    except OSError as error: told.append(error.errno)\n"
        "    else: told.append('opened')\n"
        "limits = server.resource\n"
        "for name in (limits.RLIMIT_CPU, limits.RLIMIT_FSIZE, limits.RLIMIT_NOFILE, limits.RLIMIT_CORE):\n"
        "    told.append(limits.getrlimit(name))\n"
        "part(b'E', {'reason': 'corrupt', 'found': told})",
        "",
    )
    with pytest.raises(PublicError) as error:
        reference(write(tmp_path / "voice.m4a", voice(4, 16_000), 16_000, "m4a"))
    assert error.value.details["found"] == [24, 24, 24, [5, 60], [0, 0], [3, 3], [0, 0]]  # 24: EMFILE


# --- the child and its clock


def test_a_decoder_that_hangs_is_killed_with_its_whole_group(
    tmp_path: Path, pretend: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    pids.write_bytes(bytes(64))
    pretend(
        "if other := os.fork(): shared[:] = f'{os.getpid()} {other}'.encode().ljust(64)\n"
        "part(b'H', header)\n"
        "time.sleep(600)",
        f"shared = mmap.mmap(os.open({str(pids)!r}, os.O_RDWR), 64)",
    )
    # The deadline has passed as soon as the decoder has written its header and is asleep.
    late = types.SimpleNamespace(monotonic=lambda: time.monotonic() + (1_000 if pids.read_bytes().strip(b"\0") else 0))
    monkeypatch.setattr(decoding, "time", late)
    path = write(tmp_path / "voice.m4a", voice(4, 16_000), 16_000, "m4a")
    with pytest.raises(PublicError) as error:
        reference(path)
    assert refusal(error) == ("invalid_audio", "too_slow")
    for pid in pids.read_text().split():
        _wait_for_end(int(pid))


def _wait_for_end(pid: int) -> None:
    """Until a killed process is gone, or a corpse that waits for init."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except ProcessLookupError:
            return
        except FileNotFoundError:
            pass  # Gone between the two looks, or a system without /proc.
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")


@pytest.mark.parametrize(
    ("program", "before", "code", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "", "invalid_audio", "corrupt"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "", "invalid_audio", "too_slow"),
        ("os.kill(os.getppid(), signal.SIGKILL)", "", "invalid_audio", "corrupt"),
        ("part(b'E', {'crashed': 'why'})", "", "invalid_audio", "corrupt"),
        ("part(b'E', {'warnings': []})", "", "invalid_audio", "empty"),
        ("pass", "", "invalid_audio", "corrupt"),
        ("pass", "raise SystemExit(4)", "not_configured", None),
    ],
)
def test_however_the_decoder_ends_the_answer_is_a_refusal(
    program: str,
    before: str,
    code: str,
    reason: str | None,
    tmp_path: Path,
    pretend: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = decoding.COMMAND
    pretend(program, before)
    path = write(tmp_path / "voice.m4a", voice(4, 16_000), 16_000, "m4a")
    with pytest.raises(PublicError) as error:
        reference(path)
    assert error.value.code == code
    assert error.value.details.get("reason") == reason
    if code == "not_configured" or "getppid" in program:
        monkeypatch.setattr(decoding, "COMMAND", command)
        reference(path)  # A server that is gone is started again.


def test_a_decoder_that_never_stops_is_stopped_at_the_bound(
    tmp_path: Path, pretend: Callable[[str, str], None]
) -> None:
    pretend(
        "part(b'H', header)\nblock = struct.pack('<f', 0.25) * 65536\nwhile True: decoder.Output.write(b'S', block)",
        "",
    )
    with pytest.raises(PublicError) as error:
        reference(write(tmp_path / "voice.m4a", voice(4, 16_000), 16_000, "m4a"))
    assert error.value.code == "reference_too_long"


def test_decoders_leave_no_process_and_no_descriptor_behind(tmp_path: Path) -> None:
    good = write(tmp_path / "good.webm", voice(4, 48_000), 48_000, "webm")
    bad = tmp_path / "bad.m4a"
    bad.write_bytes(encoded(voice(4, 16_000), 16_000, "m4a")[:20_000])
    reference(good)
    before = sorted(os.listdir("/dev/fd")), children()
    threads = [threading.Thread(target=_ignore_refusal, args=(path,)) for path in (good, bad, good, bad)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(os.listdir("/dev/fd")), children()) == before
    server = decoding.server._process
    assert server is not None
    tasks = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    # One that has decoded nothing waits for the next upload.
    assert settles(lambda: str(len(tasks.read_text().split()) < 2), "True")


def settles(read: Callable[[], str], expected: str) -> bool:
    deadline = time.monotonic() + 30
    while read().strip() != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return read().strip() == expected


def children() -> set[int]:
    """Of this process, those that have ended and are not waited for too."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # It has ended this moment.
            continue
        if parent == os.getpid():
            found.add(int(stat.parent.name))
    return found


def _ignore_refusal(path: Path) -> None:
    try:
        reference(path)
    except PublicError as error:
        assert error.details["reason"] == "truncated"


# --- what is taken


@pytest.mark.parametrize("format", [*FORMATS, "webm-video"])
def test_a_song_of_every_format_keeps_its_length_pitch_sides_and_level(format: str, tmp_path: Path) -> None:
    path = write(tmp_path / "upload", stereo(5, 48_000), 48_000, format)
    info = song(path, tmp_path / "song.wav")
    samples, rate = sf.read(tmp_path / "song.wav", dtype="float32")
    assert (rate, samples.shape[1], sf.info(tmp_path / "song.wav").subtype) == (44_100, 2, "FLOAT")
    assert (info.sample_rate, info.channels, info.frames) == (48_000, 2, len(samples))
    # ADTS has no place for the encoder's filling, a packet of 1024 at most.
    assert info.duration_seconds == pytest.approx(5, abs=1024 / 48_000 if format == "aac" else 1e-4)
    assert pitch(samples[:, 0], rate) == pytest.approx(220, abs=0.2)
    assert pitch(samples[:, 1], rate) == pytest.approx(330, abs=0.2)
    rms = np.sqrt(np.mean(np.square(samples[22_050:-22_050]), axis=0))
    tolerance = 0.005 if format in audio_files.LOSSLESS else 0.06
    assert rms[0] == pytest.approx(0.4 / np.sqrt(2), rel=tolerance)
    if format != "webm-vorbis":  # FFmpeg's Vorbis encoder is no judge of a quiet side
        assert rms[1] == pytest.approx(0.2 / np.sqrt(2), rel=tolerance)


@pytest.mark.parametrize("format", FORMATS)
def test_a_reference_of_every_format_is_the_voice_that_was_sent(format: str, tmp_path: Path) -> None:
    sent = voice(4, 48_000)
    samples, rate = reference(write(tmp_path / "upload", sent, 48_000, format))
    assert (samples.dtype, samples.ndim, rate) == (np.float32, 1, 48_000)
    assert len(samples) == pytest.approx(len(sent), abs=1024 if format == "aac" else 1)
    same = min(len(sent), len(samples))
    assert np.corrcoef(sent[:same], samples[:same])[0, 1] > 0.9


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 32_000, 44_100, 88_200, 96_000, 192_000])
def test_every_sample_rate_up_to_192_khz_is_a_song_of_44100_hz(rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / "upload", tone(4, rate, 440), rate, "flac")
    info = song(path, tmp_path / "song.wav")
    samples, out_rate = sf.read(tmp_path / "song.wav")
    assert (out_rate, len(samples), info.sample_rate, info.channels) == (44_100, 4 * 44_100, rate, 1)
    assert pitch(samples[:, 0], 44_100) == pytest.approx(440, abs=0.2)
    assert np.array_equal(samples[:, 0], samples[:, 1])
    assert np.max(np.abs(samples[4_410:-4_410])) == pytest.approx(0.5, rel=0.01)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    for name, format in [
        ("a.txt", "mp3"),
        ("b.wav", "webm"),
        ("c.mp3", "wav"),
        ("d.raw", "flac"),
        ("e", "m4a"),
    ]:
        samples, rate = reference(write(tmp_path / name, voice(4, 48_000), 48_000, format))
        assert len(samples) == 4 * rate


def test_tags_and_odd_headers_in_front_are_no_obstacle(tmp_path: Path) -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    samples = voice(4, 16_000)
    wav = encoded(samples, 16_000, "wav")
    (tmp_path / "rf64").write_bytes(b"")
    sf.write(tmp_path / "rf64", samples, 16_000, format="RF64", subtype="PCM_16")
    sf.write(tmp_path / "ulaw", samples, 16_000, format="WAV", subtype="ULAW")
    uploads_of = {
        "tagged mp3": tag + encoded(samples, 16_000, "mp3"),
        "tagged flac": tag + encoded(samples, 16_000, "flac"),
        "tagged aac": tag + encoded(samples, 16_000, "aac"),
        "streamed wav": wav[:4] + b"\xff" * 4 + wav[8:40] + b"\xff" * 4 + wav[44:],
        "wav with a list": wav[:36] + b"LIST\x05\x00\x00\x00INFOx\x00" + wav[36:],
        "wav with a tail": wav + b"LIST\x04\x00\x00\x00INFO",
        "rf64": (tmp_path / "rf64").read_bytes(),
        "ulaw": (tmp_path / "ulaw").read_bytes(),
        "flac of unknown length": audio_files.with_flac_length(encoded(samples, 16_000, "flac"), 0),
    }
    for name, data in uploads_of.items():
        (tmp_path / "upload").write_bytes(data)
        loaded, rate = reference(tmp_path / "upload")
        assert len(loaded) / rate == pytest.approx(4, abs=0.13), name


def test_an_mp3_without_a_length_tag_is_as_long_as_it_is(tmp_path: Path) -> None:
    quiet_start = np.concatenate([np.zeros(5 * 44_100, np.float32), 0.4 * voice(20, 44_100)])
    with sf.SoundFile(
        tmp_path / "tagged.mp3", "w", 44_100, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode="VARIABLE"
    ) as out:
        out.write(quiet_start)
    data = (tmp_path / "tagged.mp3").read_bytes()
    bare = data[data.index(b"\xff\xfb", 2) :]
    assert b"Xing" in data[:64]
    assert b"Xing" not in bare[:64]
    (tmp_path / "bare.mp3").write_bytes(bare)
    samples, rate = reference(tmp_path / "bare.mp3")
    assert len(samples) / rate == pytest.approx(25, abs=0.1)


# --- what a reference becomes


def test_sides_that_cancel_each_other_out_do_not_silence_a_voice(tmp_path: Path) -> None:
    left = voice(4, 16_000)
    samples, _ = reference(write(tmp_path / "voice", np.stack([left, -left], axis=1), 16_000, "wavfloat"))
    assert np.corrcoef(samples, left)[0, 1] > 0.999


def test_a_constant_offset_is_removed_and_a_peak_above_full_scale_brought_to_it(tmp_path: Path) -> None:
    samples, _ = reference(write(tmp_path / "offset", voice(4, 16_000) + 0.3, 16_000, "wavfloat"))
    assert abs(float(samples.mean())) < 1e-6
    for factor in (3.0, 32_768.0, 1e30):
        samples, _ = reference(write(tmp_path / "loud", voice(4, 16_000) * np.float32(factor), 16_000, "wavfloat"))
        assert 0.9 < np.max(np.abs(samples)) <= 1.0


def test_a_clipped_voice_is_taken(tmp_path: Path) -> None:
    samples, _ = reference(write(tmp_path / "clipped", np.clip(voice(4, 16_000) * 8, -1, 1), 16_000))
    assert np.max(np.abs(samples)) <= 1


def test_a_reference_comes_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "voice", tone(4, 48_000, 300), 48_000)
    samples, rate = audio.load_reference(path, field="sample", sample_rate=24_000)
    assert (rate, len(samples)) == (24_000, 96_000)
    assert pitch(samples, rate) == pytest.approx(300, abs=0.2)


def test_a_song_above_full_scale_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    loud = stereo(4, 44_100) * 5
    song(write(tmp_path / "song", loud, 44_100, "wavfloat"), tmp_path / "out.wav")
    samples, _ = sf.read(tmp_path / "out.wav", dtype="float32")
    assert np.max(np.abs(samples)) == pytest.approx(1, abs=1e-6)
    assert np.allclose(samples, loud / np.max(np.abs(loud)), atol=1e-5)


# --- encoding


@pytest.mark.parametrize("rate", [16_000, 24_000, 32_000, 40_000, 48_000])
@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus"])
def test_an_answer_decodes_to_the_length_and_pitch_that_went_in(format: str, rate: int, tmp_path: Path) -> None:
    sent = tone(3.21, rate, 250)
    (tmp_path / "answer").write_bytes(audio.encode(sent, rate, format))
    samples, out_rate = sf.read(tmp_path / "answer")
    assert len(samples) / out_rate == pytest.approx(len(sent) / rate, abs=1.5 / out_rate)
    assert pitch(samples, out_rate) == pytest.approx(250, abs=0.3)
    assert np.max(np.abs(samples[2_000:-2_000])) == pytest.approx(0.5, rel=0.1)
    lossy_rate = {"opus": 48_000, "mp3": 44_100 if rate == 40_000 else rate}
    assert out_rate == lossy_rate.get(format, rate)


def test_pcm_is_16_bit_little_endian_at_its_own_rate() -> None:
    data = audio.encode(np.array([0, 1, -1, 0.5, 2], np.float32), 24_000, "pcm")
    assert np.array_equal(np.frombuffer(data, "<i2"), [0, 32_767, -32_767, 16_384, 32_767])


def test_samples_beyond_full_scale_are_clipped_and_never_wrap_around(tmp_path: Path) -> None:
    for format in ("wav", "flac"):
        (tmp_path / "loud").write_bytes(audio.encode(tone(1, 16_000, amplitude=1.5), 16_000, format))
        samples, _ = sf.read(tmp_path / "loud")
        assert np.max(np.abs(np.diff(samples))) < 0.2
        assert np.max(samples) > 0.999


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus"])
def test_a_song_is_encoded_from_its_file_with_both_sides(format: str, tmp_path: Path) -> None:
    source = write(tmp_path / "song.wav", stereo(5, 44_100), 44_100, "wavfloat")
    info = audio.encode_file(source, tmp_path / "out", format)
    samples, rate = sf.read(tmp_path / "out")
    assert (info.frames, info.sample_rate, info.channels) == (len(samples), rate, 2)
    assert len(samples) / rate == pytest.approx(5, abs=1.5 / rate)
    assert pitch(samples[:, 0], rate) == pytest.approx(220, abs=0.2)
    assert pitch(samples[:, 1], rate) == pytest.approx(330, abs=0.2)


def test_a_file_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert audio.sha256_file(tmp_path / "file") == expected


# --- memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["song", "containers", "bomb", "reference"])
def test_memory_stays_flat_whatever_is_decoded(kind: str, tmp_path: Path) -> None:
    """Each case in a process of its own, whose peak is compared to the same process's before the decoding."""
    seconds = 8 * 60
    if kind == "song":
        path = write(tmp_path / "upload", np.tile(stereo(5, 48_000), (seconds // 5, 1)), 48_000, "flac")
    elif kind == "containers":
        path = write(tmp_path / "upload", np.tile(tone(5, 16_000), seconds // 5), 16_000, "alac")
    elif kind == "bomb":
        path = tmp_path / "upload"
        path.write_bytes(audio_files.with_flac_length(audio_files.hour_of_silence(), 0))
    else:
        # The longest and finest reference there is: 46 MB of mono float32, and that again on its way there.
        path = write(tmp_path / "upload", np.tile(stereo(5, 192_000), (12, 1)), 192_000, "flac")
    program = (
        audio_files.PEAK_MB + "import sys, resource\n"
        "from voiceproject.media import audio\n"
        "from voiceproject.errors import PublicError\n"
        "kind, path, out = sys.argv[1:]\n"
        "before = peak_mb()\n"
        "try:\n"
        "    if kind == 'reference': audio.load_reference(path, field='voice')\n"
        "    else: audio.decode_song(path, out, field='song', max_seconds=480)\n"
        "    result = 'ok'\n"
        "except PublicError as error: result = error.details['reason']\n"
        "child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(result, peak_mb() - before, child // 1024)\n"
    )
    command = [sys.executable, "-c", program, kind, str(path), str(tmp_path / "out.wav")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=True)
    result, grown_mb, child_mb = done.stdout.split()
    assert result == ("too_long" if kind == "bomb" else "ok")
    assert int(grown_mb) <= (150 if kind == "reference" else 20)
    assert int(child_mb) <= 150


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 70_001])
def test_a_wav_is_byte_for_byte_what_libsndfile_writes(channels: int, frames: int) -> None:
    samples = np.random.default_rng(3).normal(0, 0.6, (frames, channels)[:channels]).astype(np.float32)
    steps = np.rint(np.clip(samples, -1, 1) * 32_767).astype(np.int16)
    written = io.BytesIO()
    sf.write(written, steps, 32_000, format="WAV", subtype="PCM_16")
    assert audio.encode(samples, 32_000, "wav") == written.getvalue()
