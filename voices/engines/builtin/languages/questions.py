"""Which sentences end with a rising melody, by their words: the base voices say every question like a statement."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """How the melody rises over the last `frames` of 5 ms of a sentence.

    To (or by, where the language has tones that are kept) `deviations` of the speaker's log F0 above the mean, and to
    `least` semitones at any rate.
    """

    frames: int
    deviations: float
    least: float
    keeps_tones: bool = False


ENGLISH = Question(frames=80, deviations=1.8, least=4.0)
JAPANESE = Question(frames=45, deviations=1.6, least=3.5)
CHINESE = Question(frames=100, deviations=1.2, least=3.0, keeps_tones=True)

_ASKED = re.compile(r"[?？][!！?？]*[\s\"'”’»)）\]】」』]*\Z")
_CLAUSE = re.compile(r"[,;:—–…(]\s*")
_WH = r"(?:who|whom|whose|what|when|where|why|which|how)(?:['’](?:s|re|d|ll|ve))?"
_ENGLISH_WH = re.compile(
    r"(?:(?:and|but|so|or|then|well|now|oh|okay|ok|yes|no|just|exactly)\s+)*"
    r"(?:(?:in|on|at|to|for|from|with|by|of|about|under|since|until|after|before|till)\s+)?"
    rf"(?:{_WH})\b",
    re.IGNORECASE,
)
_TAG = re.compile(
    r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|must|wo|ca|ai)(?:n['’]t)?\s+"
    r"(?:i|you|he|she|it|we|they|there)|right|okay|ok|eh|huh|no|yes",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"(?:(?:and|but|so|or|then)\s+)?"
    r"(?:am|is|are|was|were|do|does|did|has|have|had|can|could|will|would|shall|should|may|might|must)(?:n['’]t)?\b",
    re.IGNORECASE,
)
_OR = re.compile(r"\bor\b", re.IGNORECASE)
# Who, what, which, how many, where, when, why, how; a verb that is repeated with "not" asks by its words too.
_CHINESE_WH = re.compile("谁|誰|什么|什麼|甚麼|啥|哪|几|幾|多[少大久远遠长長]|怎|[为為]何|如何|何[时時]")
_A_NOT_A = re.compile(r"(\w)不\1|有没有|有沒有|是否|能否|还是|還是")


def question(text: str, language: str) -> Question | None:
    """How a sentence's end rises; None where it does not.

    text: one sentence in words, with its mark; language: `en`, `ja`, `zh`. English asks with a rise where the answer is
    yes or no, and where a tag asks for consent; not with a question word, and not between two things with "or".
    Japanese rises in both kinds. Chinese rises where neither a word nor the form of the verb asks; its tones stay.
    """
    if not _ASKED.search(text):
        return None
    if language == "ja":
        return JAPANESE
    if language == "zh":
        asks = _CHINESE_WH.search(text) or _A_NOT_A.search(text)
        return None if asks and not re.search("[吗嗎]", text) else CHINESE
    clauses = [clause for clause in (part.strip(" ?!\"'”’»)]“‘«") for part in _CLAUSE.split(text)) if clause]
    if not clauses:
        return ENGLISH
    if len(clauses) > 1 and _TAG.fullmatch(clauses[-1]):
        return ENGLISH
    if _OR.search(clauses[-1]):
        return None
    # The last clause that begins like a question says which kind it is: "When you are there, will you call?"
    for clause in reversed(clauses):
        if _ENGLISH_WH.match(clause):
            return None
        if _VERB.match(clause):
            return ENGLISH
    return ENGLISH
