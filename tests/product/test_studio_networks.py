"""The studio on networks that stop, go away and come back in the middle of an upload, and with a server that dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.support.browser import Browser
from tests.support.running.breaking import BreakingNetwork
from tests.support.running.quickstart import Quickstart
from tests.support.running.studio import api, choose_files, enter, studio_browser, studio_server
from tests.support.waiting import until

pytestmark = pytest.mark.browser
STATE = "document.querySelector('#cover-state').textContent"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    with studio_server(tmp_path_factory.mktemp("networks")) as running:
        yield running


@pytest.fixture(scope="module")
def between(server: Quickstart) -> Iterator[BreakingNetwork]:
    with BreakingNetwork(server.port) as network:
        yield network


@pytest.fixture(scope="module")
def studio(between: BreakingNetwork, server: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with studio_browser(tmp_path_factory.mktemp("profile")) as running:
        yield enter(running, server, base=between.base)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Of 10 MB, more than what a machine keeps of a connection."""
    path = tmp_path / "Storm.wav"
    sf.write(path, 0.1 * np.random.default_rng(1).standard_normal((44_100 * 60, 2)), 44_100)
    return path


def offline(studio: Browser, away: bool) -> None:
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    studio.call("Network.emulateNetworkConditions", offline=away, **conditions)


def send(studio: Browser, song: Path) -> None:
    """Chooses a sample voice and the song, and begins to send."""
    if studio.evaluate("document.querySelector('#current').hidden"):
        studio.click("#tab-samples")
        studio.click("#sample-voices .item .buttons button")
        studio.wait("!document.querySelector('#current').hidden")
    studio.click("#tab-cover")
    while studio.evaluate("!!document.querySelector('#song .song')"):
        studio.click("#song .song button[aria-label='Take another song']")
    choose_files(studio, "#song-file", song)
    studio.click("#cover-button")


def begin(studio: Browser, between: BreakingNetwork, song: Path) -> None:
    """Sends the song until a part of it went through, where it stands still."""
    between.hold_after(1_000_000)
    send(studio, song)
    studio.wait(f"/^Sending: [1-9]/.test({STATE})")


def test_an_upload_waits_while_the_device_is_offline(
    studio: Browser, server: Quickstart, between: BreakingNetwork, song: Path
) -> None:
    begin(studio, between, song)
    offline(studio, True)

    def told() -> bool:
        between.cut()  # Again: a browser itself sends once more what breaks on a connection that it had used.
        return bool(studio.evaluate(f"{STATE}.startsWith('This device is offline.')"))

    until(told, 60)
    # As long as it takes: no number of tries is used up meanwhile.
    studio.evaluate("new Promise((resolve) => setTimeout(resolve, 3000))")
    assert studio.evaluate(STATE).startswith("This device is offline.")
    between.flowing.set()
    offline(studio, False)
    studio.wait("document.querySelectorAll('#jobs .job').length === 1", 60)
    assert len(api(server, "/cover/jobs")["results"]) == 1


def test_an_upload_that_stands_still_says_so_and_goes_on(
    studio: Browser, server: Quickstart, between: BreakingNetwork, song: Path
) -> None:
    begin(studio, between, song)
    studio.wait(f"{STATE}.startsWith('Nothing gets through at the moment.')", 60)
    between.flowing.set()
    studio.wait("document.querySelectorAll('#jobs .job').length === 2", 60)
    assert len(api(server, "/cover/jobs")["results"]) == 2


def test_a_server_that_is_killed_in_mid_upload_gets_the_song_when_it_is_back(
    studio: Browser, server: Quickstart, between: BreakingNetwork, song: Path
) -> None:
    begin(studio, between, song)
    server.stop(signal.SIGKILL, group=True)
    # Its web process sees that and ends a moment later; until then it would take the song on a new connection.
    until(lambda: not server.answers(), 60)
    between.cut()
    between.flowing.set()
    studio.wait(f"{STATE}.startsWith('The connection broke. Sending again in ')", 60)
    back = Quickstart(server.log.parent / "data", again=server).ready()
    try:
        studio.wait("document.querySelectorAll('#jobs .job').length === 3", 120)
        assert len(api(server, "/cover/jobs")["results"]) == 3
    finally:
        back.stop()
    assert [line for line in studio.complaints if "ERR_" not in line and "status of 50" not in line] == []
