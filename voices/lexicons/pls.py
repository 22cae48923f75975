"""W3C's Pronunciation Lexicon Specification 1.0, read and written."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Any

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from voiceproject.errors import PublicError
from voices.lexicons.entries import MAX_ENTRIES
from voices.text.lexicon import Entry
from voices.text.pronunciation import RESPELLING, alphabet_called

CONTENT_TYPE = "application/pls+xml"
MAX_BYTES = 4 * 1024 * 1024
_SPACE = "http://www.w3.org/2005/01/pronunciation-lexicon"
# What the format has no words for: whether case counts, and whether only whole words are meant.
_OURS = "urn:voiceproject:lexicon"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def read(content: bytes, field: str = "file") -> tuple[list[dict[str, Any]], list[str]]:
    """The entries, as voices.lexicons.entries.check takes them, and warnings.

    Document types and entities are refused. Raises PublicError validation_error (the field), file_too_large.
    """
    if len(content) > MAX_BYTES:
        message = f"A lexicon's file has at most {MAX_BYTES} bytes; this has {len(content)}."
        raise PublicError("file_too_large", message, {"field": field, "limit": MAX_BYTES, "found": len(content)})
    try:
        root = fromstring(content, forbid_dtd=True)
    except DefusedXmlException:
        raise _refused(field, "It has a document type or entities, which are not read.") from None
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        raise _refused(field, f"It is no well-formed XML: {str(error)[:100]}.") from None
    if _name(root) != "lexicon":
        raise _refused(field, f"Its root is <{_name(root)[:50]}>; a pronunciation lexicon's is <lexicon>.")
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    for lexeme in root:
        if _name(lexeme) == "lexeme":
            rows += _lexeme(lexeme, root, field, warnings)
            if len(rows) > MAX_ENTRIES:
                raise _refused(field, f"A lexicon has at most {MAX_ENTRIES} entries; this file has more.")
    if not rows:
        raise _refused(field, "There is no <lexeme> in it.")
    return rows, warnings


def _lexeme(lexeme: ET.Element, root: ET.Element, field: str, warnings: list[str]) -> list[dict[str, Any]]:
    graphemes = [child for child in lexeme if _name(child) == "grapheme"]
    said = [child for child in lexeme if _name(child) in ("phoneme", "alias")]
    words = ["".join(grapheme.itertext()).strip() for grapheme in graphemes]
    if not words or not said:
        raise _refused(field, f"The lexeme {words[:1] or ''} needs a grapheme, and a phoneme or an alias.")
    chosen = next((child for child in said if child.get("prefer", "").lower() == "true"), said[0])
    if len(said) > 1:
        warnings.append(f'"{words[0][:50]}" is said in {len(said)} ways; one counts: "{_content(chosen)[:50]}".')
    if lexeme.get("role"):
        warnings.append(f'The role of "{words[0][:50]}" is not looked at.')
    alphabet = RESPELLING
    if _name(chosen) == "phoneme":
        alphabet = chosen.get("alphabet") or root.get("alphabet") or "ipa"
        if alphabet_called(alphabet) in (None, RESPELLING):
            raise _refused(field, f'"{alphabet[:50]}" is no alphabet that is known here (of "{words[0][:50]}").')
    row: dict[str, Any] = {
        "say": _content(chosen),
        "alphabet": alphabet,
        "language": lexeme.get(_LANG) or root.get(_LANG) or "",
    }
    if (exact := lexeme.get(f"{{{_OURS}}}case-sensitive")) is not None:
        row["case_sensitive"] = exact == "true"
    if (whole := lexeme.get(f"{{{_OURS}}}whole-word")) is not None:
        row["whole_word"] = whole == "true"
    return [{"word": word, **row} for word in words]


def _content(element: ET.Element) -> str:
    return "".join(element.itertext()).strip()


def _name(element: ET.Element) -> str:
    """Without its namespace: many files have none."""
    return str(element.tag).rpartition("}")[2]


def _refused(field: str, message: str) -> PublicError:
    return PublicError("validation_error", f"{field}: {message}", {field: [message]})


def write(entries: Iterable[Entry], language: str) -> bytes:
    """A file of these entries. language: of the lexicon, `auto` for none."""
    ET.register_namespace("", _SPACE)
    ET.register_namespace("vp", _OURS)
    root = ET.Element(f"{{{_SPACE}}}lexicon", {"version": "1.0", "alphabet": "ipa"})
    root.set(_LANG, "und" if language == "auto" else language)
    for entry in entries:
        lexeme = ET.SubElement(root, f"{{{_SPACE}}}lexeme")
        if entry.language and entry.language != language:
            lexeme.set(_LANG, entry.language)
        if entry.case_sensitive:
            lexeme.set(f"{{{_OURS}}}case-sensitive", "true")
        if not entry.whole_word:
            lexeme.set(f"{{{_OURS}}}whole-word", "false")
        ET.SubElement(lexeme, f"{{{_SPACE}}}grapheme").text = entry.word
        if entry.alphabet == RESPELLING:
            ET.SubElement(lexeme, f"{{{_SPACE}}}alias").text = entry.say
        else:
            phoneme = ET.SubElement(lexeme, f"{{{_SPACE}}}phoneme")
            phoneme.text = entry.say
            if entry.alphabet != "ipa":
                phoneme.set("alphabet", entry.alphabet)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True)) + b"\n"
