"""Names that people see: titles of what was made, and the names of downloads."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

MAX_TITLE = 500
WORDS_CHARACTERS = 60
# With its ending and a suffix, a name that every file system takes.
MAX_NAME_BYTES = 200
_NO_FILE_NAME = re.compile(r'[\\/:*?"<>|]')
# RFC 5987: what stands for itself in `filename*`.
_ATTRIBUTE_CHARACTERS = "!#$&+^`|~-._"


def tidy(text: str) -> str:
    """The text on one line, without characters that nobody sees."""
    if text.isprintable():
        return " ".join(text.split())
    # Joiners make one emoji of several; other invisible characters turn text around or break lines.
    kept = (
        character if character in "\u200c\u200d" or unicodedata.category(character)[0] != "C" else " "
        for character in text
    )  # fmt: skip
    return " ".join("".join(kept).split())


def first_words(text: str) -> str:
    """What a text is called that has no name: its beginning, at most 60 characters, cut between words if there are
    some."""
    line = tidy(text[: 20 * WORDS_CHARACTERS])
    if len(line) <= WORDS_CHARACTERS:
        return line
    cut = line[: WORDS_CHARACTERS - 1]
    at = cut.rfind(" ")
    return (cut[:at] if at > WORDS_CHARACTERS // 2 else cut).rstrip(" ,;:.\u200d") + "\u2026"


def joined_title(*parts: str) -> str:
    """`song - voice`, without those parts that are empty."""
    return " - ".join(part for part in map(tidy, parts) if part)[:MAX_TITLE].rstrip()


def download_name(title: str, extension: str, suffix: str = "") -> str:
    """A file's name made of a title; empty where nothing of it can stand in one. suffix: behind the title, as it is."""
    name = _NO_FILE_NAME.sub("_", tidy(title))
    cut = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(". \u200c\u200d")
    return f"{cut}{suffix}.{extension}" if cut else ""


def attachment(filename: str, plain: str) -> str:
    """A Content-Disposition (RFC 6266) for a name without quotes and backslashes. plain: for clients that read ASCII
    only."""
    if filename.isascii() and "%" not in filename:
        return f'attachment; filename="{filename}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe=_ATTRIBUTE_CHARACTERS)}"
