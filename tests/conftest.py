"""Which fixtures there are, and in which order the files run.

Fixtures are in tests/fixtures, fakes of what is not ours in tests/fakes, plain helpers in tests/support, programs that
tests start in tests/programs. No test module imports another.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytest_plugins = [f"tests.fixtures.{path.stem}" for path in sorted(Path(__file__).parent.glob("fixtures/[!_]*.py"))]
# Their asserts tell as much as those of tests.
pytest.register_assert_rewrite("tests.fakes", "tests.support")

# A shell that starts the run in its background has Ctrl-C ignored, by all that tests start and press it for too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# They take longest, and so do all whose names begin so. Begun last, one of them would keep one process busy while the
# others have nothing left to do.
LONGEST = (
    "test_gptsovits_train", "test_quickstart", "test_examples", "test_builtin_engine", "test_studio", "test_docs_page",
    "test_last_release", "test_rvc_train", "test_covers", "test_worker", "test_gptsovits_server", "test_builtin_infer",
    "test_told", "test_isolation", "test_gptsovits_infer", "test_japanese_chinese", "test_texts_of_every_kind",
    "test_hostile_websockets", "test_bad_input", "test_cover_consumers", "test_audio", "test_other_engines",
    "test_gptsovits_runtime", "test_gptsovits_separate", "test_builtin_separate", "test_lease", "test_checks",
    "test_conversion", "test_provenance", "test_openapi", "test_edge", "test_slow_clients", "test_hostile_sockets",
    "test_trainings", "test_documents", "test_settings",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        found = (number for number, name in enumerate(LONGEST) if item.path.stem.startswith(name))
        return next(found, len(LONGEST))

    items.sort(key=place)
