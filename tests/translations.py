"""The catalogue of the pages' texts, made and compiled without gettext's tools: `python -m tests.translations`.

Finds every text that is marked for translation in the apps and their templates, and those of django-unfold and of
Django's passwords that Django has no Chinese for, merges them into the django.po of voiceproject/locale, and compiles
that. What is new stands there with an empty translation, to be written; then the command is run again.
"""

from __future__ import annotations

import gettext
import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import django
import unfold
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "voiceproject" / "locale" / "zh_Hans" / "LC_MESSAGES"
PO, MO = FOLDER / "django.po", FOLDER / "django.mo"
APPS = ("voiceproject", "voices", "covers")
BETTER = {" By %(filter_title)s "}  # What Django's Chinese says clumsily, and ours over it.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # Two runs over the same texts make the same files.

# What each function's arguments are: the text itself, or its singular and plural, or its context (c) and the text.
KEYWORDS: dict[str, tuple[int | tuple[int, str], ...] | None] = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy", "gettext_noop")),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), (1, 2)),
    **dict.fromkeys(("pgettext", "pgettext_lazy"), ((1, "c"), 2)),
    **dict.fromkeys(("npgettext", "npgettext_lazy"), ((1, "c"), 2, 3)),
}
Text = tuple[str | None, str | tuple[str, str]]  # context; the text, or its singular and plural


def sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".html", ".txt") and not {"migrations", "contrib"} & set(path.parts[:-1]):
            yield path


def texts(path: Path) -> Iterator[tuple[int, Text]]:
    """(line, text) of each that is marked in a Python file or a template."""
    source = path.read_text()
    if path.suffix != ".py":
        # Django writes a template as calls of gettext between rows of X; in brackets, since it is not indented as code.
        source = f"({templatize(source, str(path))})"
    for line, name, found, _comments in extract_python(io.BytesIO(source.encode()), list(KEYWORDS), (), {}):
        given = [part for part in (found if isinstance(found, tuple) else (found,)) if isinstance(part, str)]
        keyword = KEYWORDS[str(name)] or (1,)
        if len(given) < len(keyword):
            continue  # What is translated is a variable; its text is marked where it is written.
        context = given.pop(0) if isinstance(keyword[0], tuple) else None
        plural = len(keyword) - (context is not None) == 2
        yield line, (context, (given[0], given[1]) if plural else given[0])


def translated_by_django() -> set[str]:
    home = Path(django.__file__).parent
    folders = [home / "conf", *(home / "contrib" / app for app in ("admin", "auth", "contenttypes", "sessions"))]
    known: set[str] = set()
    for folder in folders:
        file = folder / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.mo"
        if file.exists():
            with file.open("rb") as stream:
                entries = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
            known.update(key if isinstance(key, str) else key[0] for key in entries)
    return known


def template() -> Catalog:
    """All texts, as they stand in the sources now."""
    catalog = Catalog()
    for app in APPS:
        for path in sources(ROOT / app):
            for line, (context, text) in texts(path):
                catalog.add(text, locations=[(str(path.relative_to(ROOT)), line)], context=context)
    known, packages = translated_by_django() - BETTER, Path(django.__file__).parent.parent
    for path in (*sources(Path(unfold.__file__).parent), packages / "django/contrib/auth/password_validation.py"):
        for line, (context, text) in texts(path):
            if (text if isinstance(text, str) else text[0]) not in known:
                catalog.add(text, locations=[(str(path.relative_to(packages)), line)], context=context)
    return catalog


def read() -> Catalog:
    with PO.open("rb") as file:
        return read_po(file, locale="zh_Hans", domain="django")


def compiled(catalog: Catalog) -> bytes:
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def main() -> None:
    catalog = read() if PO.exists() else Catalog(locale="zh_Hans", domain="django", project="voiceproject")
    catalog.update(template(), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    catalog.fuzzy = False
    catalog.header_comment = "# The pages for people, in Simplified Chinese. See tests/translations.py."
    catalog.version = catalog.msgid_bugs_address = catalog.last_translator = ""
    catalog.language_team = "Simplified Chinese"
    catalog.creation_date = catalog.revision_date = EPOCH
    FOLDER.mkdir(parents=True, exist_ok=True)
    with PO.open("wb") as file:
        write_po(file, catalog, include_lineno=False, sort_by_file=True, width=120)
    MO.write_bytes(compiled(catalog))
    empty = [message.id for message in catalog if message.id and not any(message.string or ())]
    print(f"{len(catalog)} texts, {len(empty)} of them without a translation")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    main()
