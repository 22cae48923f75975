"""The README and the pages of docs/: their code blocks, and what stands around them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
# The one way to say that an example is not executed: a line of its own right before the block.
NOT_RUN = re.compile(r"^\*Not run by the tests: (.+)\.\*$")
FENCE = re.compile(r"^(`{3,})([^`]*)$")


@dataclass(frozen=True)
class Block:
    """language: the word after the fence; not_run: the reason that stands before it, or empty; line: of the fence."""

    language: str
    code: str
    not_run: str
    line: int


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    fence, language, code, before, start = "", "", [""], "", 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not fence:
            if opening := FENCE.match(line):
                fence, language, code, start = opening[1], opening[2].strip(), [], number
            elif line.strip():
                before = line
        elif line == fence:
            reason = NOT_RUN.match(before)
            found.append(Block(language, "\n".join(code) + "\n", reason[1] if reason else "", start))
            fence, before = "", ""
        else:
            code.append(line)
    assert not fence, f"{page.name}:{start}: a code block is not closed"
    return found


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
