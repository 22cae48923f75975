"""Markdown taken off a text. Headings, list items and table rows end with a blank line, so that they end a sentence."""

from __future__ import annotations

import re

_MAY_HAVE = re.compile(r"[*_~`#>|\[\]\\+=-]|^\s*[•◦▪・]", re.MULTILINE)
_RULE = re.compile(r"\s*(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,}|={3,})")
_TABLE_RULE = re.compile(r"[\s|:-]+")
_BULLET = re.compile(r"\s*(?:[-*+•◦▪‣]\s+|・)(?:\[[ xX]\]\s+)?(?=\S)")
_NUMBERED = re.compile(r"\s*\(?\d{1,3}[.)、]\s+(?=\S)")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(?=\S)")
_QUOTED = re.compile(r"\s{0,3}(?:>\s?)+(?![\d=])")

_LINK = re.compile(r"!?\[([^\[\]\n]{0,300})\]\([^()\s]{0,500}(?:\s+\"[^\"\n]{0,200}\")?\)")
_REFERENCE = re.compile(r"\[([^\[\]\n]{1,300})\]\[[^\[\]\n]{0,50}\]|\[\^[\w-]{1,30}\]:?")
_CODE = re.compile(r"(`{1,3})([^`\n]+)\1")
_STRONG = re.compile(r"\*\*(?=[^\s*])([^*\n]+)(?<=\S)\*\*|(?<!\w)__(?=[^\s_])([^_\n]+)(?<=\S)__(?!\w)")
_EMPHASIS = re.compile(
    r"(?<![\w*\\])\*(?=[^\s*])([^*\n]+)(?<=[^\s\\])\*(?![\w*])|(?<![\w\\])_(?=[^\s_])([^_\n]+)(?<=[^\s\\])_(?!\w)"
)
_STRUCK = re.compile(r"~~(?=\S)([^~\n]+)~~")
# What comes before the words of a subtitle.
_CUE = re.compile(r"^(?:WEBVTT\b.*|(?:\d+[ \t]*\n)?[ \t]*[\d:]{5,9}[,.]\d{3} --> .*)$", re.MULTILINE)
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+.!~>|-])")


def without_markdown(text: str) -> str:
    """The words of a text that may be Markdown."""
    if not _MAY_HAVE.search(text):
        return text
    if "-->" in text:
        text = _CUE.sub("", text)
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        if line.lstrip().startswith(("```", "~~~")) and "`" not in line.lstrip()[3:]:
            fenced = not fenced
            lines += ["", ""]
        elif fenced:
            lines.append(line)
        else:
            _block(line, lines)
    joined = "\n".join(lines)
    joined = _LINK.sub(r"\1", joined)
    joined = _REFERENCE.sub(lambda m: m[1] or "", joined)
    joined = _CODE.sub(r"\2", joined)
    for _ in range(2):  # bold inside italic, and the other way round
        joined = _STRONG.sub(_inner, joined)
        joined = _EMPHASIS.sub(_inner, joined)
    joined = _STRUCK.sub(r"\1", joined)
    return _ESCAPED.sub(r"\1", joined)


def _inner(match: re.Match[str]) -> str:
    return match[1] if match[1] is not None else match[2]


def _block(line: str, lines: list[str]) -> None:
    """Appends a line without the marks at its beginning, between blank lines where it stands for itself."""
    if _RULE.fullmatch(line):
        lines += ["", ""]
        return
    if quoted := _QUOTED.match(line):
        line = line[quoted.end() :]
    if heading := _HEADING.match(line):
        lines += ["", "", line[heading.end() :].rstrip().rstrip("#").rstrip(), "", ""]
    elif bullet := _BULLET.match(line):
        lines += ["", line[bullet.end() :]]
    elif _NUMBERED.match(line):
        lines += ["", line]
    elif line.count("|") >= 2 and line.strip().startswith("|") and line.strip().endswith("|"):
        if not _TABLE_RULE.fullmatch(line):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            lines += ["", ", ".join(cell for cell in cells if cell), ""]
    else:
        lines.append(line)
