"""Text that arrives word by word, and is given out in parts that can be spoken. Pure Python."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from voices.text.languages import has_speech
from voices.text.pieces import fit, last_clause
from voices.text.sentences import finished

SCHEDULE = (120, 160, 250, 290)
MAX_PART = 1000  # characters
# In characters: of a part that ends within a sentence, since the sender is in a hurry; and how much must be there for
# that, since a sentence that is about to end sounds better whole.
LEAST_CLAUSE, HURRIED = 25, 75


class GrowingText:
    """schedule: how many characters the first part waits for, the second, ...; the last number counts for all others.

    A part ends with a sentence where there is one to end with. eager: each message is a phrase that is given out as it
    is; those that have waited for their turn together are joined up to the end of a sentence.
    """

    def __init__(self, schedule: Sequence[int] = SCHEDULE, eager: bool = False) -> None:
        self.schedule = tuple(schedule)
        self.eager = eager
        self._whole: deque[str] = deque()  # parts that are due
        self._growing = ""
        self._tried = False
        self._given = 0

    def __len__(self) -> int:
        return sum(map(len, self._whole)) + len(self._growing)

    def add(self, text: str, *, trigger: bool = False) -> None:
        """trigger: gives out what is there, if it is a sentence or a clause that is long enough."""
        self._growing += text
        self._tried |= trigger
        if self.eager and (text[-1:].isspace() or not text[-1:].isalnum()):
            self.flush()

    def flush(self) -> None:
        """All that is there is due. Marks with nothing to speak stay, and go with what comes next."""
        if has_speech(self._growing):
            self._whole.append(self._growing)
            self._growing = ""

    def drop(self) -> None:
        """Forgets what is not due."""
        self._growing = ""

    def take(self) -> str:
        """The next part, with something to speak in it; empty where none is due."""
        part = self._due() if self._whole else self._early()
        if part:
            self._given += 1
        return part

    def _due(self) -> str:
        part = self._whole.popleft()
        while self.eager and self._whole and not ends_sentence(part) and len(part) + len(self._whole[0]) <= MAX_PART:
            part += self._whole.popleft()
        if len(part) <= MAX_PART:
            return part
        cut = _fitting(part)
        rest = part[cut:]
        if has_speech(rest):
            self._whole.appendleft(rest)
        else:
            self._growing = rest + self._growing
        return part[:cut]

    def _early(self) -> str:
        text, tried = self._growing, self._tried
        self._tried = False
        cut = 0
        if tried:
            cut = finished(text) or (last_clause(text, LEAST_CLAUSE) if len(text) >= HURRIED else 0)
        least = self.schedule[min(self._given, len(self.schedule) - 1)]
        if not cut and len(text) >= least:
            cut = finished(text)
            if 2 * cut < least and 2 * len(text) >= 3 * least:
                cut = last_clause(text, least // 2) or cut
            if not cut and len(text) >= 2 * least:
                cut = text.rfind(" ") + 1
        if cut > MAX_PART or (len(text) > MAX_PART and not cut):
            cut = _fitting(text)
        if not has_speech(text[:cut]):
            if cut and len(text) > MAX_PART:
                self._growing = text[cut:]  # So many marks go with nothing.
            return ""
        self._growing = text[cut:]
        return text[:cut]


def _fitting(text: str) -> int:
    return finished(text[:MAX_PART]) or len(next(fit(text, MAX_PART)))


def ends_sentence(text: str) -> bool:
    """Whether nothing of the text is left over behind its last whole sentence, if it does not go on."""
    return finished(text + " ") >= len(text.rstrip())
