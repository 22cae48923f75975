"""Ten tasks of the four faces, done as a stranger does them: what each takes in clicks, words and seconds.

    python -m bench.faces [--pictures FOLDER]

Makes a fresh installation in a folder of its own, with the first command of the README and two workers as on GPU hosts,
and drives headless Chromium with real clicks, keys and files. Each task begins where the one who does it would: the
studio's first page, the console's, the account's. It ends when what was wanted is seen, or heard, on the page; a step
that leads nowhere ends the program. Prints the table of docs/benchmarks.md.

Clicks count each press of the mouse, a choice in a list included. Fields are what was written, files what was chosen.
Of the seconds, `waited` are those in which nothing could be done but to wait; a person's own come on top.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
import soundfile as sf

from tests.support.browser import Browser
from tests.support.running.quickstart import BASE_DIR, REFERENCE, SAMPLES, Quickstart
from tests.support.waiting import until

PASSWORD = "a-fresh-Password-9"
SONG = "Snow in June.ogg"
FAILING = 6  # covers that one host fails
QUICK = BASE_DIR / "tests" / "programs" / "quick_command.py"


class Person:
    """One in a browser of their own, whose presses, words and files are counted."""

    def __init__(self, browser: Browser, pictures: Path | None) -> None:
        self.browser = browser
        self.pictures = pictures
        self.begin("")

    def begin(self, task: str) -> None:
        self.task = task
        self.clicks = self.fields = self.files = 0
        self.waited = 0.0

    def click(self, selector: str) -> None:
        self.clicks += 1
        self.browser.click(selector)

    def press(self, words: str, within: str = "body") -> None:
        """Clicks the link or button that says these words, as someone does who knows no selector."""
        find = f"""[...document.querySelectorAll('{within} a, {within} button, {within} summary')].find((one) =>
            one.checkVisibility() && (one.innerText.trim() || one.ariaLabel || '').split('\\n')
                .some((line) => line.startsWith({json.dumps(words)})))"""
        self.browser.wait(f"(() => {{ const one = {find}; one?.setAttribute('data-pressed', ''); return !!one; }})()")
        self.click("[data-pressed]")
        # The page may have gone with what was pressed.
        self.browser.wait(
            "document.querySelectorAll('[data-pressed]').forEach((one) => one.removeAttribute('data-pressed')) ?? true"
        )

    def choose(self, selector: str, value: str) -> None:
        """Takes an entry of a list: a press to open it, and one on the entry."""
        self.clicks += 2
        field = f"document.querySelector({json.dumps(selector)})"
        self.browser.wait(f"!!{field}")
        self.browser.evaluate(f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('change'))")

    def write(self, selector: str, text: str) -> None:
        self.fields += 1
        self.browser.write(selector, text)

    def file(self, selector: str, path: Path) -> None:
        self.files += 1
        self.browser.choose_file(selector, path)

    def see(self, expression: str, seconds: float = 60) -> Any:
        """Waits until something is true of the page, and takes a picture of it."""
        started = time.monotonic()
        found = self.browser.wait(expression, seconds)
        self.waited += time.monotonic() - started
        return found

    def look(self, name: str) -> None:
        if self.pictures:
            self.browser.screenshot(self.pictures / f"{name}.png")


class Product:
    """A fresh installation: a web server, and workers that are told by name what they can do.

    checkout: where the release stands that is installed.
    """

    def __init__(self, folder: Path, checkout: Path = BASE_DIR) -> None:
        self.folder, self.checkout = folder, checkout
        self.web = Quickstart(folder / "data", "--no-worker", empty=True, checkout=checkout, cwd=checkout).ready()
        self.base, self.key = self.web.base, self.web.key
        self.password = self.web.output.partition("admin / ")[2].split()[0]
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        return {**kept, "DATA_DIR": str(self.folder / "data"), "ENV_FILE": os.devnull, **more}

    def manage(self, *arguments: str, **more: str) -> str:
        command = [sys.executable, str(self.checkout / "manage.py"), *arguments]
        done = subprocess.run(
            command, cwd=self.checkout, env=self.environment(**more), capture_output=True, text=True, check=True
        )
        return done.stdout

    def start(self, host: str, **more: str) -> None:
        command = [sys.executable, "-m", "dramatiq", "voiceproject.worker", "--processes", "1", "--threads", "6"]
        with (self.folder / f"{host}.log").open("ab") as log:
            self.workers[host] = subprocess.Popen(
                [*command, "--skip-logging"], cwd=self.checkout, stdout=log, stderr=subprocess.STDOUT,
                env=self.environment(WORKER_HOST=host, **more), start_new_session=True,
            )  # fmt: skip

    def stop(self, host: str) -> None:
        worker = self.workers.pop(host)
        os.killpg(worker.pid, signal.SIGTERM)
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    def close(self) -> None:
        for host in list(self.workers):
            self.stop(host)
        self.web.stop()

    def api(self, path: str, **more: Any) -> Any:
        method = "POST" if more else "GET"
        response = requests.request(
            method, f"{self.base}/api/v1{path}", headers={"X-API-Key": self.key}, timeout=60, **more
        )
        response.raise_for_status()
        return response.json()


# --- In the studio ---------------------------------------------------------------------------------------------------


def first_sound(person: Person, product: Product) -> None:
    """From the studio's first page, with a key in the clipboard, to a voice that is heard."""
    person.browser.open(f"{product.base}/")
    person.look("studio-welcome")
    person.write("#key", product.key)
    person.press("Open the studio")
    person.see("!document.querySelector('#try').hidden")
    person.look("studio-first")
    person.press("Hazel", "#try")
    person.see("document.querySelector('#speak-state').textContent.startsWith('Playing as it is made')")
    person.look("studio-playing")


def own_words(person: Person, product: Product) -> None:
    """Their own words in the voice of a recording that they have as a file."""
    person.browser.wait("document.querySelector('#speak-state').textContent.startsWith('Done')", 120)
    person.click("#current .icon-cross")
    person.press("File", "#sources")
    person.file("#reference-drop input", REFERENCE)
    person.see("document.querySelectorAll('#current .chips li').length > 2")
    person.write("#text", "These are my own words, in my own voice.")
    person.press("Speak", "#speak-form .actions")
    person.see("document.querySelector('#speak-state').textContent.startsWith('Done')", 120)
    person.look("studio-own-words")


def voice_is_kept(person: Person, product: Product) -> None:
    """That voice saved under a name; the next day, in a browser that knows nothing, it speaks again."""
    person.press("Save this voice", "#current")
    person.write("#save-name", "Grandmother")
    person.click("#save-consent")
    person.press("Save", "#save-form")
    person.see("document.querySelector('#current .title')?.innerText === 'Grandmother'")
    person.look("studio-saved")
    forget_browser(person, product)
    enter_key(person, product)
    person.press("Saved", "#sources")
    person.press("Use", "#saved-voices")
    person.write("#text", "Good morning.")
    person.press("Speak", "#speak-form .actions")
    person.see("document.querySelector('#speak-state').textContent.startsWith('Done')", 120)


def cover_is_made(person: Person, product: Product) -> None:
    """A song from the disk in that voice, until it is heard."""
    song = product.folder / SONG
    song.write_bytes((SAMPLES / "song.ogg").read_bytes())
    person.press("Cover", "#tabs")
    person.file("#song-file", song)
    person.press("Make the cover")
    person.see("document.querySelector('#jobs .job')")
    person.see("document.querySelector('.job[data-status=running] .meta:not(:empty)')", 60)
    person.look("studio-cover-running")
    person.see("document.querySelector('.job[data-status=succeeded] .track.result')", 400)
    person.click(".job .track.result .round")
    person.see("document.querySelector('.job .track.result .round').getAttribute('aria-pressed') === 'true'")
    person.look("studio-cover")


def cover_is_found(person: Person, product: Product) -> None:
    """The next day: that cover by its name, and its file with its name."""
    forget_browser(person, product)
    enter_key(person, product)
    person.press("History", "#tabs")
    person.press("Covers", "#history-kinds")
    person.see("!!document.querySelector('#history-covers .item')")
    # What is searched for comes a moment after it was typed, in place of the list that is there.
    person.browser.evaluate("document.querySelector('#history-covers .list').setAttribute('data-before', '')")
    person.write("#history-q", "snow")
    person.see("document.querySelectorAll('#history-covers .list:not([data-before]) .item').length === 1")
    person.look("studio-history")
    downloads = product.folder / "downloads"
    downloads.mkdir(exist_ok=True)
    person.browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    person.click("#history-covers .track.result .icon-download")
    until(lambda: [*downloads.glob("*.wav")], 60)
    (found,) = downloads.glob("*.wav")
    assert "Snow in June" in found.name and "Grandmother" in found.name, found.name


def passed_on(person: Person, product: Product) -> None:
    """A link to it, which a friend without a key hears; then it is taken back."""
    person.click("#history-covers .icon-share")
    person.press("Make a link", "#history-covers .inset")
    url = person.see("document.querySelector('#history-covers .inset input')?.value")
    person.look("studio-share")
    assert requests.get(f"{url}/audio", timeout=60).status_code == 200
    person.press("Take back", "#history-covers .inset")
    person.see("!document.querySelector('#history-covers .inset input')")
    assert requests.get(url, timeout=60).status_code == 404


def enter_key(person: Person, product: Product) -> None:
    person.browser.open(f"{product.base}/")
    person.write("#key", product.key)
    person.press("Open the studio")
    person.see("!document.querySelector('#workspace').hidden")


def forget_browser(person: Person, product: Product) -> None:
    person.browser.call("Storage.clearDataForOrigin", origin=product.base, storageTypes="all")


# --- In the console --------------------------------------------------------------------------------------------------


def sign_in(person: Person, product: Product, path: str, name: str, password: str) -> None:
    """Not counted: it is the same for each, and a browser fills it in."""
    person.browser.open(f"{product.base}{path}")
    person.browser.write("[name=username]", name)
    person.browser.write("[name=password]", password)
    person.browser.press("Enter")
    person.browser.wait("!document.querySelector('[name=password]')")


def failing_host(person: Person, product: Product) -> None:
    """Covers fail; the operator comes with nothing but the console. Which host, and why?"""
    person.browser.open(f"{product.base}/admin/")
    said = person.see("document.querySelector('.console-failing li')?.innerText")
    assert "CUDA out of memory" in said and f"gpu-2 {FAILING}" in said, said
    person.look("console-dashboard")


def retried(person: Person, product: Product) -> None:
    """The host was mended: all covers that failed so are tried again, and nothing else."""
    product.stop("gpu-2")
    product.start("gpu-1", **quick())
    person.press("All failures")
    person.see("document.body?.innerText.includes('Retry all')")
    person.look("console-failures")
    person.press("Retry all")
    person.see("document.body?.innerText.includes('sure')")
    person.look("console-retry")
    person.press("Yes")
    person.browser.wait("document.readyState === 'complete' && !document.body?.innerText.includes('take me back')")
    person.look("console-retried")
    until(lambda: len(product.api("/cover/jobs?status=succeeded&page_size=50")["results"]) >= FAILING, 120)
    person.press("Dashboard")
    person.see("document.querySelector('.console-figures')")


def blocked(person: Person, product: Product) -> None:
    """A tenant does what is not wanted: it is blocked, with a reason, and the console shows it."""
    person.browser.open(f"{product.base}/admin/")
    person.press("Tenants")
    person.press("demo", "#result_list")
    person.look("console-tenant")
    person.press("Block", ".console-acts")
    person.see("document.querySelector('[name=reason]')")
    person.look("console-block")
    person.write("[name=reason]", "Songs of others")
    person.press("Yes")
    person.see("document.body?.innerText.includes('Songs of others')")
    person.look("console-blocked")
    answer = requests.get(f"{product.base}/api/v1/voice/voices", headers={"X-API-Key": product.key}, timeout=60)
    assert answer.status_code == 403, answer.text


# --- In the account --------------------------------------------------------------------------------------------------


def leaked_key(person: Person, product: Product) -> None:
    """A key has leaked: it ends, and another one is in the clipboard."""
    person.browser.open(f"{product.base}/account/")
    person.look("account")
    person.press("quickstart")
    person.look("account-key")
    person.choose("[name=overlap_seconds]", "0")
    person.press("Replace the key")
    secret = person.see("document.querySelector('#secret')?.value")
    person.look("account-secret")
    person.press("Copy", "main")
    person.see("document.body?.innerText.includes('Copied')")
    for key, status in ((product.key, 401), (secret, 200)):
        answer = requests.get(f"{product.base}/api/v1/voice/voices", headers={"X-API-Key": key}, timeout=60)
        assert answer.status_code == status, answer.text
    product.key = secret


def quick(habit: str = "") -> dict[str, str]:
    """The environment of a worker whose commands are quick and untrue."""
    infer = f"{{python_exec}} {QUICK} infer {{input_vocal}} {{output_vocal}} {habit} --reference {{reference_voice}}"
    separate = f"{{python_exec}} {QUICK} separate {{song_input}} {{vocal_output}} {{inst_output}}"
    return {
        "COVER_SEPARATE_CMD_TEMPLATE": separate, "COVER_INFER_CMD_TEMPLATE": infer, "COVER_FIND_VOICE": "false",
    }  # fmt: skip


def prepare_failures(product: Product) -> None:
    product.stop("gpu-1")
    product.start("gpu-2", **quick("oom"))
    rng = np.random.default_rng(1)
    for number in range(FAILING):
        path = product.folder / f"Song {number}.flac"
        sf.write(path, 0.1 * rng.standard_normal((44_100 * 4, 2)), 44_100)
        files = {"song": (path.name, path.read_bytes()), "reference_voice": ("r.flac", REFERENCE.read_bytes())}
        product.api("/cover/jobs", files=files)
    until(lambda: len(product.api("/cover/jobs?status=failed&page_size=50")["results"]) == FAILING, 120)


Task = tuple[str, str, Callable[[Person, Product], None]]
TASKS: tuple[Task, ...] = (
    ("Hear a first sound, with a key and no recording", "studio", first_sound),
    ("Say one's own words in the voice of a file", "studio", own_words),
    ("Save that voice; use it the next day in another browser", "studio", voice_is_kept),
    ("Make a cover of a song and play it", "studio", cover_is_made),
    ("Find it by name the next day and download it", "studio", cover_is_found),
    ("Pass it on by a link, and take that back", "studio", passed_on),
    ("End a leaked key and have another one", "account", leaked_key),
    ("See which host fails covers, and why", "console", failing_host),
    ("Try all again that failed for this cause", "console", retried),
    ("Block a tenant and see that it is", "console", blocked),
)


@contextmanager
def installed(folder: Path, checkout: Path = BASE_DIR) -> Iterator[Product]:
    product = Product(folder, checkout)
    try:
        yield product
    finally:
        product.close()


def measure(person: Person, product: Product, tasks: Iterable[Task]) -> None:
    """Does the tasks one after the other, and prints the row of each.

    Signing in is not counted, nor are the covers that fail before the first task of the console.
    """
    print("| Task | Face | Clicks | Fields | Files | Waited, s | In all, s |\n|---|---|---|---|---|---|---|")
    entered = "studio"
    for task, face, work in tasks:
        if face != entered and face == "account":
            set_password(product)
            sign_in(person, product, "/account/signin", "demo", PASSWORD)
        if face != entered and face == "console":
            prepare_failures(product)
            forget_browser(person, product)
            sign_in(person, product, "/admin/", "admin", product.password)
        entered = face
        person.begin(task)
        started = time.monotonic()
        work(person, product)
        seconds = time.monotonic() - started
        counted = f"{person.clicks} | {person.fields} | {person.files} | {person.waited:.1f} | {seconds:.1f}"
        print(f"| {task} | {face} | {counted} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser("bench.faces", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of each step that matters")
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, installed(Path(name)) as product:
        product.start("gpu-1")
        with Browser(Path(name) / "profile") as browser:
            browser.size(1440, 900)
            measure(Person(browser, options.pictures), product, TASKS)
    return 0


def set_password(product: Product) -> None:
    code = (
        "from django.contrib.auth.models import User; user = User.objects.get(username='demo'); "
        f"user.set_password({PASSWORD!r}); user.save()"
    )
    product.manage("shell", "-c", code)


if __name__ == "__main__":
    sys.exit(main())
