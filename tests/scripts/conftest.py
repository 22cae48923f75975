"""Fixtures of the tests of scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scripts.script_server import ScriptServer


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptServer]:
    """The module's SCRIPT in one process that takes job after job, which most of its tests share."""
    serving = ScriptServer(tmp_path_factory.mktemp("server"), request.module.SCRIPT.name)
    yield serving
    serving.close()
