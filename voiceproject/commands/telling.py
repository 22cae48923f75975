"""What a failed command's standard error comes down to: its first telling line, and that line as a name for the cause.

Two failures have one cause where these lines differ in nothing but numbers, ids and folders.
"""

from __future__ import annotations

import re

MAX_CAUSE = 200  # characters

# `torch.OutOfMemoryError: CUDA out of memory`, `FileNotFoundError(2, 'No such file')`. In a chain of exceptions the
# first one is where it began.
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout|Expired)\b")
_TROUBLE = re.compile(
    r"\b(?:error|errno|fatal|failed|failure|cannot|can't|could not|unable|no such|not found|out of memory|killed|"
    r"denied|refused|missing|invalid|unknown|unsupported|corrupt\w*|too (?:long|short|large|small|many))\b",
    re.IGNORECASE,
)
# What programs say while all is well, and what only surrounds an exception.
_NOISE = re.compile(
    r"(?:WARNING|INFO|DEBUG|engine:|PROGRESS|SEPARATION)\b|Traceback \(|File \"|.*(?:Warning: |it/s\]|\d%\|)"
    r"|During handling of|The above exception"
)
# The runner's own first line, which says how the command ended; the second where the command knows more of it.
_ENDED = re.compile(r"it (?:exited with status|took longer|was |wrote more)")
_EXITED = re.compile(r"it exited with status")

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_UUID = re.compile(
    r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b|\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b|\b0x[0-9a-f]+\b"
)
_FOLDER = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?/(?:[^\s/'\":,;()]+/)+")
_NUMBER = re.compile(
    r"(\b(?:status|signal|http|code|errno|line)\s)?(?<![\w.-])\d+(?:[.,]\d+)*(?![\w.-]*[A-Za-z]\w*\.)", re.I
)


def telling_line(stderr: str) -> str:
    """The line of a command's standard error, or of its tail, that says most of why it failed; "" for none.

    The first line that names an exception; or the first that speaks of trouble; or how the command was ended; or the
    last line that is no noise.
    """
    lines = [line.strip()[: 5 * MAX_CAUSE] for line in _COLOUR.sub("", stderr).splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    ended = lines[0] if lines and _ENDED.match(lines[0]) else ""
    said = lines[1:] if ended else lines
    for pattern in (_EXCEPTION.match, _TROUBLE.search):
        for line in said:
            if pattern(line):
                return line
    return ended if ended and not _EXITED.match(ended) else (said or lines or [""])[-1]


def cause_of(stderr: str) -> str:
    """`telling_line`, without what differs from one failure to the next: at most MAX_CAUSE printable characters."""
    line = "".join(character if character.isprintable() else " " for character in telling_line(stderr))
    line = _FOLDER.sub("…/", _UUID.sub("…", line))
    line = _NUMBER.sub(lambda found: found[0] if found[1] else "#", line)
    return " ".join(line.split())[:MAX_CAUSE]
