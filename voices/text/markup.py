"""Markup taken off a text: HTML, SSML, Markdown, entities, and the bracketed directions of other services.

What remains is words, in runs of one speed, and pauses. Headings, list items and paragraphs end with a blank line.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from voices.text.languages import FIRST_STAND_IN, HAN, KANA
from voices.text.lexicon import Kept, script_of_word
from voices.text.markdown import without_markdown
from voices.text.pronunciation import ALPHABETS, RESPELLING, alphabet_called, pronounced
from voices.text.words.say_as import SAID_AS, said_as

MAX_PAUSE_SECONDS = 10.0
MAX_PAUSES_SECONDS = 60.0
MAX_DEPTH = 16
MIN_RATE, MAX_RATE = 0.5, 2.0

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]{0,40})(\s[^<>]{0,500}|/)?>|<[?!][A-Za-z\[][^<>]{0,500}>")
_ATTRIBUTE = re.compile(r"""\s+([A-Za-z_:][\w:.-]*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'=]+))""")
_FLAGS = re.compile(
    r"(?:\s+(?:async|autoplay|checked|controls|defer|disabled|hidden|loop|muted|nowrap|open|selected))*"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_PHONEME = re.compile(r"<phoneme\s[^<>]{0,500}>", re.IGNORECASE)
_STAND_INS = re.compile(f"[{chr(FIRST_STAND_IN)}-\U0010ffff]")

_BLOCKS = frozenset(
    str.split(
        "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer "
        "form h1 h2 h3 h4 h5 h6 head header hr html legend li main nav ol option p paragraph pre s section select "
        "sentence summary table tbody tfoot thead title tr ul"
    )
)
_INLINE = frozenset(
    str.split(
        "a abbr acronym b bdi bdo big button cite code data del dfn em font i iframe img input ins kbd label link "
        "mark meta meter noscript object output picture progress q rb rp rt ruby samp small source span strike strong "
        "sup svg textarea tt u var video wbr"
    )
)
_SILENT = frozenset(["script", "style", "template"])  # with all that is in them
_WRAPPERS = frozenset(["emphasis", "phoneme", "prosody", "say-as", "speak", "sub"])
_SAID_OTHERWISE = frozenset(["phoneme", "say-as", "sub"])
_NOT_DONE = frozenset(["audio", "desc", "lang", "lexicon", "lookup", "metadata", "token", "voice", "w"])
_STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.75, "x-strong": 1.0}
_RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.75}
_EMPHASES = {"strong": 0.85, "moderate": 0.92, "none": 1.0, "reduced": 1.1}

_DIRECTION = re.compile(r"\[([^\W\d_][^\[\]\n]{0,60})\]")
# Stems of the words that such directions have in them; [John] and [sic] are read.
_DIRECTIONS = re.compile(
    r"\b(?:whisper|laugh|chuckl|giggl|sigh|gasp|cough|sob|cry|cries|crying|sniff|snort|exhal|inhal|breath|yawn|groan|"
    r"moan|shout|yell|scream|sing|hum(?:s|ming)?\b|clap|applau|gulp|swallow|clears? throat|pause|silence|music|excit|"
    r"sarcas|curious|mischiev|happ[iy]|sad|angr[iy]|nervous|calm|cheer|soft|quiet|loud|slow|fast|serious|surpris|"
    r"dramatic|playful|tired|accent|tone|voice|explosion|gunshot|footsteps|door|wind|beep)|"
    r"^(?:笑声?|大笑|叹气|咳嗽|呼吸|停顿|哭泣?|鼓掌|音乐|笑い声?|ため息|咳|拍手|間)$",
    re.IGNORECASE,
)


class MarkupError(ValueError):
    """Markup that cannot be followed; the message names the tag."""


@dataclass(frozen=True)
class Run:
    """Words of one speed; rate: 2 is twice as fast."""

    text: str
    rate: float = 1.0


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass
class _Open:
    """An element that is open. text: of those that say their content otherwise, None for others."""

    name: str
    attributes: dict[str, str]
    rate: float = 1.0
    text: list[str] | None = None


@dataclass
class _Parser:
    language: str
    kept: Kept
    parts: list[Run | Pause] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    buffer: list[str] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    silent: str = ""
    paused: float = 0.0
    voiced: bool = False  # whether one <voice> is over

    @property
    def rate(self) -> float:
        return self.stack[-1].rate if self.stack else 1.0

    def add(self, text: str) -> None:
        if not self.silent:
            inner = self.stack[-1].text if self.stack else None
            (self.buffer if inner is None else inner).append(text)

    def flush(self) -> None:
        text = "".join(self.buffer)
        self.buffer.clear()
        if text.strip():
            self.parts.append(Run(text, self.rate))

    def tag(self, whole: str, closing: bool, name: str, rest: str) -> None:
        """One tag; whole: as it is written, which is what remains where it is none."""
        name = name.lower()
        attributes = _attributes(rest)
        if attributes is None:
            self.add(whole)
        elif self.silent:
            self.silent = "" if closing and name == self.silent else self.silent
        elif name in _SILENT:
            self.silent = "" if closing or rest.rstrip().endswith("/") else name
        elif name == "break":
            if not closing:
                self._pause(attributes)
        elif name in _WRAPPERS:
            self._wrapper(closing, name, attributes, rest.rstrip().endswith("/"))
        elif name == "voice" and not self.voiced:
            # Around the whole of a text, as some services ask for: the request says who speaks.
            self.voiced = closing
            self.ignored += [] if closing else ["<voice>"]
        elif name in _NOT_DONE or ":" in name:
            raise MarkupError(f"The tag <{name}> cannot be followed here: take it out of the text.")
        elif name == "br":
            self.add("\n")
        elif name in ("td", "th"):
            self.add(", " if closing else "")
        elif name in _BLOCKS:
            self.add("\n\n")
        elif name == "img" and attributes.get("alt"):
            self.add(attributes["alt"])
        elif name not in _INLINE:
            self.ignored.append(f"<{name}>")
            self.add(" ")

    def _pause(self, attributes: dict[str, str]) -> None:
        if self.stack and self.stack[-1].text is not None:
            raise MarkupError(f"The tag <break> cannot stand inside <{self.stack[-1].name}>.")
        seconds = _pause_seconds(attributes)
        self.paused += seconds
        if self.paused > MAX_PAUSES_SECONDS:
            raise MarkupError(f"The tags <break> of a text may last {MAX_PAUSES_SECONDS:g} seconds in all.")
        self.flush()
        if seconds:
            self.parts.append(Pause(seconds))

    def _wrapper(self, closing: bool, name: str, attributes: dict[str, str], empty: bool) -> None:
        if closing:
            if not self.stack or self.stack[-1].name != name:
                inside = f" inside <{self.stack[-1].name}>" if self.stack else ""
                raise MarkupError(f"The tag </{name}> closes nothing{inside}.")
            if self.rate != (self.stack[-2].rate if len(self.stack) > 1 else 1.0):
                self.flush()
            done = self.stack.pop()
            if done.text is not None:
                self.add(self._said(done))
            return
        if len(self.stack) >= MAX_DEPTH:
            raise MarkupError(f"The tag <{name}> is nested more than {MAX_DEPTH} deep.")
        if self.stack and self.stack[-1].text is not None:
            raise MarkupError(f"The tag <{name}> cannot stand inside <{self.stack[-1].name}>.")
        rate = self.rate * _rate(name, attributes)
        if not MIN_RATE <= rate <= MAX_RATE:
            raise MarkupError(
                f"The tag <{name}> asks for a rate of {rate:.2f}; {MIN_RATE:g} to {MAX_RATE:g} are possible."
            )
        if rate != self.rate:
            self.flush()
        if name == "sub" and "alias" not in attributes:
            raise MarkupError("The tag <sub> needs an alias.")
        if name == "say-as" and attributes.get("interpret-as", "").lower() not in SAID_AS:
            raise MarkupError(f"The tag <say-as> needs interpret-as, one of: {', '.join(sorted(SAID_AS))}.")
        if name == "phoneme" and not attributes.get("ph", "").strip():
            raise MarkupError("The tag <phoneme> needs ph, how its content is said.")
        element = _Open(name, attributes, rate, [] if name in _SAID_OTHERWISE else None)
        if not empty:
            self.stack.append(element)
        elif name in ("phoneme", "sub"):
            self.add(self._said(element))

    def _said(self, element: _Open) -> str:
        if element.name == "sub":
            return element.attributes["alias"]
        if element.name == "phoneme":
            return self._pronounced(element)
        how, style = element.attributes["interpret-as"].lower(), element.attributes.get("format", "")
        try:
            return said_as(how, "".join(element.text or []), self.language, style)
        except ValueError as error:
            raise MarkupError(f"The tag <say-as>: {error}") from None

    def _pronounced(self, element: _Open) -> str:
        name, say = element.attributes.get("alphabet", "ipa"), element.attributes["ph"].strip()
        alphabet = alphabet_called(name)
        if alphabet in (None, RESPELLING):
            known = ", ".join(one for one in ALPHABETS if one != RESPELLING)
            raise MarkupError(f'The tag <phoneme> knows no alphabet "{name[:40]}"; it knows: {known}.')
        try:
            entry = pronounced(" ".join("".join(element.text or []).split()) or say, str(alphabet), say)
        except ValueError as error:
            raise MarkupError(f"The tag <phoneme>: {error}.") from None
        # Pinyin and kana are of one language, whatever the word is written in.
        script = {"pinyin": HAN, "kana": KANA}.get(entry.alphabet) or script_of_word(entry.word)
        return self.kept.keep(entry, script)


def parse(text: str, language: str, kept: Kept | None = None) -> tuple[list[Run | Pause], list[str]]:
    """The runs and pauses of a text, and what was left out of it.

    language: a code, in which <say-as> speaks; kept: takes the words of <phoneme>. Raises MarkupError.
    """
    parser = _Parser(language, kept or Kept())
    if "<" in text:
        position = 0
        for start, end, match in _tags(text):
            parser.add(text[position:start])
            if match is not None and match[2]:
                parser.tag(match[0], bool(match[1]), match[2], match[3] or "")
            position = end
        parser.add(text[position:])
        if parser.stack:
            raise MarkupError(f"The tag <{parser.stack[-1].name}> is not closed.")
    else:
        parser.add(text)
    parser.flush()
    parts: list[Run | Pause] = []
    for part in parser.parts:
        if isinstance(part, Run):
            plain = _without_directions(without_markdown(part.text), parser.ignored)
            part = Run(_ENTITY.sub(lambda m: _unescaped(m[0]), plain), part.rate)
        parts.append(part)
    return parts, parser.ignored


def with_plain_tags(text: str) -> str:
    """The text with the letters of <phoneme> as entities: what makes a text's characters plain would change them."""
    if "<" not in text:
        return text
    return _PHONEME.sub(lambda m: "".join(char if char.isascii() else f"&#{ord(char)};" for char in m[0]), text)


def _unescaped(text: str) -> str:
    """With its entities resolved, but for those that would be words kept aside."""
    return _STAND_INS.sub("", html.unescape(text))


def _tags(text: str) -> list[tuple[int, int, re.Match[str] | None]]:
    """Where tags and comments begin and end; the match is None for comments."""
    found: list[tuple[int, int, re.Match[str] | None]] = []
    position = 0
    comments = True  # whether one may still be closed
    while (start := text.find("<", position)) >= 0:
        position = start + 1
        if comments and text.startswith("<!--", start):
            end = text.find("-->", start + 4)
            comments = end >= 0
            if comments:
                found.append((start, end + 3, None))
                position = end + 3
        elif match := _TAG.match(text, start):
            found.append((start, match.end(), match))
            position = match.end()
    return found


def _attributes(rest: str) -> dict[str, str] | None:
    """What stands behind a tag's name; None where that is no attributes."""
    position = 0
    attributes: dict[str, str] = {}
    rest = rest.rstrip().removesuffix("/").rstrip()
    while match := _ATTRIBUTE.match(rest, position):
        attributes[match[1].lower()] = _unescaped(next(value for value in match.groups()[1:] if value is not None))
        position = match.end()
    return attributes if _FLAGS.fullmatch(rest, position) else None


def _pause_seconds(attributes: dict[str, str]) -> float:
    if "time" not in attributes:
        strength = attributes.get("strength", "medium").lower()
        if strength not in _STRENGTHS:
            raise MarkupError(f"The tag <break> knows these strengths: {', '.join(_STRENGTHS)}.")
        return _STRENGTHS[strength]
    match = re.fullmatch(r"\+?(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})(ms|s)", attributes["time"].strip().lower())
    if match is None:
        raise MarkupError('The tag <break> needs a time such as "1.5s" or "500ms".')
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1)
    if seconds > MAX_PAUSE_SECONDS:
        raise MarkupError(f"The tag <break> may last {MAX_PAUSE_SECONDS:g} seconds.")
    return seconds


def _rate(name: str, attributes: dict[str, str]) -> float:
    if name == "emphasis":
        level = attributes.get("level", "moderate").lower()
        if level not in _EMPHASES:
            raise MarkupError(f"The tag <emphasis> knows these levels: {', '.join(_EMPHASES)}.")
        return _EMPHASES[level]
    if name != "prosody":
        return 1.0
    others = [
        key for key in attributes if key != "rate" and attributes[key].lower() not in ("medium", "default", "+0%")
    ]
    if others:
        raise MarkupError(f"The tag <prosody> can change the rate only, not: {', '.join(others)}.")
    asked = attributes.get("rate", "medium").strip().lower()
    if asked in _RATES:
        return _RATES[asked]
    match = re.fullmatch(r"([+-]?)(\d{1,4}(?:\.\d{1,4})?)(%?)", asked)
    if match is None:
        raise MarkupError(f'The tag <prosody> needs a rate such as "80%", or one of: {", ".join(_RATES)}.')
    value = float(match[2]) / (100 if match[3] else 1)
    return 1 + value if match[1] == "+" else 1 - value if match[1] else value


def _without_directions(text: str, ignored: list[str]) -> str:
    if "[" not in text:
        return text

    def judged(match: re.Match[str]) -> str:
        if not _DIRECTIONS.search(match[1]) or (match[1][0].isupper() and " " in match[1]):
            return match[0]
        ignored.append(match[0])
        return " "

    return _DIRECTION.sub(judged, text)
