"""Which fixtures there are, and in which order the files run.

Fixtures are in tests/fixtures, fakes of what is not ours in tests/fakes, plain helpers in tests/support, programs that
tests start in tests/programs. No test module imports another.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = [f"tests.fixtures.{path.stem}" for path in sorted(Path(__file__).parent.glob("fixtures/[!_]*.py"))]
# Their asserts tell as much as those of tests.
pytest.register_assert_rewrite("tests.fakes", "tests.support")

# They take longest. Begun last, one of them would keep one process busy while the other has nothing left to do.
LONGEST = (
    "test_gptsovits_train", "test_examples", "test_quickstart", "test_builtin_engine", "test_last_release",
    "test_gptsovits_server", "test_worker", "test_studio", "test_hostile_websockets", "test_gptsovits_infer",
    "test_builtin_infer", "test_told",
    "test_covers", "test_isolation", "test_bad_input", "test_japanese_chinese", "test_cover_consumers", "test_audio",
    "test_builtin_separate", "test_settings", "test_lease", "test_checks", "test_conversion", "test_provenance",
    "test_openapi", "test_edge", "test_slow_clients", "test_hostile_sockets", "test_trainings", "test_rvc_train",
    "test_documents",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
