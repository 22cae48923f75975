"""Where things of the tests live: what several files share is in tests/support, fakes, fixtures or programs."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
FILES = [path for folder in ("tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(text: str, package: tuple[str, ...] = ("tests", "covers")) -> Iterator[str]:
    """Dotted names of modules, and of what is taken out of them, wherever in a file of this package it is done."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *((node.module,) if node.module else ())))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_not_to_be_imported(name: str) -> bool:
    """Test modules, plugins of fixtures, and conftest.py: pytest alone loads them."""
    first, *parts = name.split(".")
    plugin = parts[:1] == ["fixtures"] or "conftest" in parts
    # The last one may be a function: `from module import test_of_mine`.
    return first == "tests" and (plugin or any(part.startswith("test_") for part in parts))


def test_nobody_imports_tests_or_fixtures() -> None:
    found = {
        str(path.relative_to(ROOT)): name
        for path in FILES
        for name in imported(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parent.parts)
        if is_not_to_be_imported(name)
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("from tests.covers.test_covers import song", True),
        ("import tests.covers.test_covers", True),
        ("from tests.covers import test_covers", True),
        ("from . import test_covers", True),
        ("from .test_covers import song", True),
        ("def f():\n    from tests.fixtures.covers import habits", True),
        ("from tests.conftest import LONGEST", True),
        ("from tests.support.covers import song", False),
        ("from covers.models import CoverJob", False),
    ],
)
def test_an_import_of_a_test_is_found_in_every_form(text: str, forbidden: bool) -> None:
    assert any(map(is_not_to_be_imported, imported(text))) is forbidden


def test_a_folder_has_at_most_fifteen_modules() -> None:
    modules = Counter(
        path.parent for path in FILES if path.name != "__init__.py" and path.is_relative_to(ROOT / "tests")
    )
    assert {str(folder): count for folder, count in modules.items() if count > 15} == {}
