"""The pages: that they build without a warning, load nothing from elsewhere, are readable, and tell all there is."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.docs.blocks import DOCS, PAGES, ROOT, prose
from voiceproject.errors import STATUS_OF_CODE
from voiceproject.jobs.status import ERROR_MESSAGES

ROOT_PAGES = [ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
SETTINGS = dotenv_values(ROOT / ".env.example", interpolate=False)


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(source), str(output)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("site")
    done = build(DOCS, output)
    assert done.returncode == 0, done.stderr
    return output


class Loads(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "audio", "video", "embed"):
            self.urls.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "index", "search"):
            self.urls.append(given.get("href") or "")


def test_the_pages_load_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text())
        assert [url for url in loads.urls if "//" in url] == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""(@import|url\()\s*["']?(https?:)?//""", sheet.read_text()), sheet.name


def test_a_dead_link_or_a_missing_anchor_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text((DOCS / "conf.py").read_text())
    (tmp_path / "index.md").write_text("# Home\n\n[page](gone.md), [anchor](#gone)\n\n![picture](gone.png)\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert done.stderr.count("target not found") == 2 and "image file not readable" in done.stderr


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in [*PAGES, *ROOT_PAGES] if page.parent == ROOT], ids=lambda p: p.stem)
def test_the_links_of_the_pages_outside_docs_lead_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", prose(page)):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_every_picture_is_shown() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [picture.name for picture in (DOCS / "images").iterdir() if f"images/{picture.name})" not in text] == []


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: page.stem)
def test_a_page_is_readable(page: Path) -> None:
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= 120, f"line {number} has {len(line)} characters"
        named = {name for name in re.findall(r"\b[A-Z][A-Z0-9_]+\b", line) if name in SETTINGS}
        assert len(named) < 5, f"line {number} carries {len(named)} settings"
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |\|))", prose(page)):
        shown = re.sub(r"\]\([^)]*\)|[`*\[]", "", paragraph)
        assert len(" ".join(shown.split())) <= 600, f"more than six lines: {shown.strip()[:80]}..."


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def rows(page: str) -> list[list[str]]:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    return [row for row in cells if row[0].startswith("`")]


def test_the_configuration_page_has_every_setting_with_its_default_and_none_besides() -> None:
    told = {row[0].strip("`"): row[1] for row in rows("configuration.md")}
    assert told.keys() == SETTINGS.keys()
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for name, default in told.items():
        value = SETTINGS[name] or ""
        if default.startswith("["):  # A command, which stands below the table.
            assert value and " ".join(value.split()) in " ".join(page.split()), name
        elif value:
            assert default == f"`{value}`", name
        else:
            assert not default.startswith("`"), f"{name} has no default in .env.example"


def test_the_errors_page_has_every_code_with_its_status_and_none_besides() -> None:
    told = [(row[0].strip("`"), row[1]) for row in rows("errors.md")]
    assert {code: int(status) for code, status in told if status.isdigit()} == STATUS_OF_CODE
    assert {code for code, status in told if not status.isdigit()} == set(ERROR_MESSAGES)  # of failed jobs


def test_contributing_names_every_room_and_none_that_is_gone() -> None:
    told = set(re.findall(r"^\| `([\w/]+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE))
    doors = [ROOT / app for app in ("voiceproject", "voices", "covers")]
    doors += [door.parent for app in doors for door in app.glob("*/__init__.py")]
    rooms = {str(door.relative_to(ROOT)) for door in doors if door.name not in ("management", "migrations")}
    assert rooms <= told
    assert [room for room in told if not (ROOT / room).is_dir()] == []


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: page.stem)
def test_the_files_and_modules_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    top = "voiceproject|voices|covers|gpu_scripts|tests|bench|deploy|docs"
    named = [ROOT / path for path in re.findall(rf"(?<![\w/.])((?:{top})/[\w./-]*\w)", text)]
    named += [ROOT / f"{module.replace('.', '/')}.py" for module in re.findall(r"-m ((?:bench|tests)\.\w+)", text)]
    # Files that a reader makes, and a route of ElevenLabs.
    others = {ROOT / "deploy" / "compose.env", ROOT / "deploy" / ".env", ROOT / "voices" / "add"}
    assert [
        str(path.relative_to(ROOT))
        for path in named
        if path not in others and not (path.exists() or path.with_suffix("").is_dir())
    ] == []
