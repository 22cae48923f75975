"""What a failed command's standard error comes down to."""

from __future__ import annotations

import pytest

from voiceproject.commands.telling import MAX_CAUSE, cause_of, telling_line

TRACEBACK = """it exited with status 1
WARNING the reference is short
 40%|####      | 4/10 [00:02<00:03, 1.9it/s]
Traceback (most recent call last):
  File "/srv/rvc/infer.py", line 31, in run
    raise ValueError("unreached")
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB (GPU 0; 23.69 GiB total capacity)

During handling of the above exception, another exception occurred:

RuntimeError: the song could not be converted
"""


def test_the_first_exception_of_a_chain_tells_most() -> None:
    assert telling_line(TRACEBACK).startswith("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB")


def test_two_failures_that_differ_in_numbers_ids_and_folders_have_one_cause() -> None:
    causes = {cause_of(TRACEBACK.replace("2.50", size).replace("23.69", size)) for size in ("2.50", "512", "1,024.75")}
    assert causes == {
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate # GiB (GPU #; # GiB total capacity)"
    }
    paths = ("/a/cover-0e2d8f5a-1111-4222-8333-0e2d8f5a1111-1/vocals.wav", "/srv/x/vocals.wav")
    assert {cause_of(f"it exited with status 1\nrvc: {path}: No such file") for path in paths} == {
        "rvc: …/vocals.wav: No such file"
    }


@pytest.mark.parametrize(("stderr", "cause"), [
    ("", ""),
    ("it exited with status 137", "it exited with status 137"),
    ("it was killed by signal 9\nloading v2Pro.pth", "it was killed by signal 9"),
    ("it took longer than 600 s\nstep 12", "it took longer than # s"),
    ("it exited with status 1\nloading\nthere is no singing in this", "there is no singing in this"),
    ("it exited with status 1\nloading\nHTTP 500: model gpu-2 not found\nbye", "HTTP 500: model gpu-2 not found"),
    ("RuntimeError('x\x00y')\x1b[0m", "RuntimeError('x y')"),
])  # fmt: skip
def test_without_an_exception_the_line_that_speaks_of_trouble_or_the_way_it_ended(stderr: str, cause: str) -> None:
    assert cause_of(stderr) == cause


def test_a_line_of_any_length_is_cut_and_found_fast() -> None:
    for text in ("x" * 100_000, "a/" * 50_000, "9" * 50_000, "Error: " + "/a" * 50_000, "ab12" * 25_000):
        assert len(cause_of(text)) <= MAX_CAUSE
