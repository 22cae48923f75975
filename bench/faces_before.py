"""The ten tasks of bench.faces in the last release, with the same clicks, keys and files in the same browser.

    python -m bench.faces_before [--old CHECKOUT] [--pictures FOLDER]

Without --old it makes a checkout of the last release for the time of the run. Each task is done as far as it can be:
by the way that came nearest, where the thing itself was not there; the docstring of each says what was not. Prints the
columns "before" of the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import requests
import soundfile as sf

from bench.faces import (
    FAILING,
    REFERENCE,
    SAMPLES,
    SONG,
    Person,
    Product,
    Task,
    enter_key,
    forget_browser,
    installed,
    measure,
    quick,
)
from bench.serving.servers import LAST_RELEASE, checkout
from tests.support.browser import Browser
from tests.support.waiting import until

SPOKEN = "document.querySelector('#speak-state').textContent.startsWith('Done')"


def first_sound(person: Person, product: Product) -> None:
    """There is no voice to try: they read a sentence into their microphone, and write one."""
    person.browser.open(f"{product.base}/")
    person.write("#key", product.key)
    person.press("Open the studio")
    person.click("#record")
    person.see("document.querySelector('#record-state').textContent.startsWith('0:05')")
    person.click("#record")
    person.see("document.querySelectorAll('#current .chips li').length > 2")
    person.write("#text", "Hello, this is what I sound like.")
    person.press("Speak", "#speak-form .actions")
    person.see("document.querySelector('#speak-state').textContent.startsWith('Playing as it is made')")
    person.look("before-playing")


def own_words(person: Person, product: Product) -> None:
    person.browser.wait(SPOKEN, 120)
    person.click("#current .icon-cross")
    person.press("File", "#sources")
    person.file("#reference-drop input", REFERENCE)
    person.see("document.querySelectorAll('#current .chips li').length > 2")
    person.write("#text", "These are my own words, in my own voice.")
    person.press("Speak", "#speak-form .actions")
    person.see(SPOKEN, 120)


def voice_is_kept(person: Person, product: Product) -> None:
    person.press("Save this voice", "#current")
    person.write("#save-name", "Grandmother")
    person.click("#save-consent")
    person.press("Save", "#save-form")
    person.see("document.querySelector('#current .title')?.innerText === 'Grandmother'")
    forget_browser(person, product)
    enter_key(person, product)
    person.press("Saved", "#sources")
    person.press("Use", "#saved-voices")
    person.write("#text", "Good morning.")
    person.press("Speak", "#speak-form .actions")
    person.see(SPOKEN, 120)


def cover_is_made(person: Person, product: Product) -> None:
    song = product.folder / SONG
    song.write_bytes((SAMPLES / "song.ogg").read_bytes())
    person.press("Cover", "#tabs")
    person.file("#song-file", song)
    person.press("Make the cover")
    person.see("!!document.querySelector('#jobs .job')")
    person.see("!!document.querySelector('.job .track.result')", 400)
    person.click(".job .track.result .round")
    person.see("document.querySelector('.job .track.result .round').getAttribute('aria-pressed') === 'true'")
    person.look("before-cover")


def cover_is_found(person: Person, product: Product) -> None:
    """Nothing has its name: it is "Cover of" and a time, to be found by ear, and saved under its id."""
    forget_browser(person, product)
    enter_key(person, product)
    person.press("History", "#tabs")
    person.press("Covers", "#history-kinds")
    person.see("!!document.querySelector('#history-covers .track.result')")
    person.look("before-history")
    assert "Snow" not in person.browser.evaluate("document.querySelector('#history-covers').innerText")
    person.click("#history-covers .track.result .round")
    person.see("document.querySelector('#history-covers .result .round').getAttribute('aria-pressed') === 'true'")
    downloads = product.folder / "downloads"
    downloads.mkdir(exist_ok=True)
    person.browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    person.click("#history-covers .track.result .icon-download")
    until(lambda: [*downloads.glob("*.wav")], 60)
    (found,) = downloads.glob("*.wav")
    assert "Snow" not in found.name, found.name


def passed_on(person: Person, product: Product) -> None:
    """There are no links: not possible, but for the file that was just saved, which nobody takes back."""
    assert not person.browser.evaluate("document.body.innerText.includes('Share')")


def leaked_key(person: Person, product: Product) -> None:
    """Nothing copies the new one: it is marked with two presses, and copied with a key."""
    person.browser.open(f"{product.base}/account")
    person.press("quickstart")
    person.choose("[name=overlap_seconds]", "0")
    person.press("Replace the key")
    secret = person.see("document.querySelector('#secret')?.value")
    person.look("before-secret")
    person.click("#secret")
    person.click("#secret")
    for key, status in ((product.key, 401), (secret, 200)):
        answer = requests.get(f"{product.base}/api/v1/voice/voices", headers={"X-API-Key": key}, timeout=60)
        assert answer.status_code == status, answer.text
    product.key = secret


def failing_host(person: Person, product: Product) -> None:
    """The list of what failed has hosts and codes; the cause stands on each job's page, so each is opened."""
    person.browser.open(f"{product.base}/admin/")
    person.look("before-dashboard")
    person.press("Covers")
    person.press("Filters")
    person.press("Failed")
    rows = "document.querySelectorAll('#result_list tbody tr')"
    person.see(f"{rows}.length === {FAILING} && document.readyState === 'complete'")
    person.look("before-failed")
    for number in range(1, FAILING + 1):
        person.click(f"#result_list tbody:nth-of-type({number}) th a")
        said = person.see("document.querySelector('.console-stderr')?.innerText")
        assert "CUDA out of memory" in said, said
        person.clicks += 1  # the browser's own way back
        person.browser.evaluate("history.back()")
        person.see(f"{rows}.length === {FAILING} && document.readyState === 'complete'")


def retried(person: Person, product: Product) -> None:
    """By the list that is filtered already, a page at a time."""
    product.stop("gpu-2")
    product.start("gpu-1", **quick())
    person.click("#action-toggle")
    person.see("document.querySelectorAll('#result_list input.action-select:checked').length > 0")
    person.choose("[name=action]", "retry_jobs")
    person.look("before-retry")
    person.press("Run", "#changelist-form")
    person.see("document.body?.innerText.includes('sure')")
    person.press("Yes")
    until(lambda: len(product.api("/cover/jobs?status=succeeded&page_size=50")["results"]) >= FAILING, 120)


def blocked(person: Person, product: Product) -> None:
    """No reason is asked for, and the list of tenants does not show it: that of users does."""
    person.browser.open(f"{product.base}/admin/")
    person.press("Limits")
    person.browser.wait("!!document.querySelector('#result_list')")
    person.click("#result_list tbody .action-checkbox input")
    person.choose("[name=action]", "block")
    person.press("Run", "#changelist-form")
    person.see("document.body?.innerText.includes('sure')")
    person.press("Yes")
    person.see("!!document.querySelector('#result_list') && document.readyState === 'complete'")
    person.look("before-blocked")
    person.press("Users")
    person.see("document.querySelector('#result_list')?.innerText.includes('demo')")
    person.look("before-users")
    answer = requests.get(f"{product.base}/api/v1/voice/voices", headers={"X-API-Key": product.key}, timeout=60)
    assert answer.status_code == 403, answer.text


TASKS: tuple[Task, ...] = (
    ("Hear a first sound, with a key and no recording", "studio", first_sound),
    ("Say one's own words in the voice of a file", "studio", own_words),
    ("Save that voice; use it the next day in another browser", "studio", voice_is_kept),
    ("Make a cover of a song and play it", "studio", cover_is_made),
    ("Find it the next day and download it", "studio", cover_is_found),
    ("Pass it on by a link: not possible", "studio", passed_on),
    ("End a leaked key and have another one", "account", leaked_key),
    ("See which host fails covers, and why", "console", failing_host),
    ("Try all again that failed for this cause", "console", retried),
    ("Block a tenant and see that it is", "console", blocked),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        "bench.faces_before", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="of the last release")
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of each step that matters")
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        old = options.old or stack.enter_context(checkout(LAST_RELEASE))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        product = stack.enter_context(installed(folder, old.resolve()))
        product.start("gpu-1")
        speech, rate = sf.read(REFERENCE, dtype="float32")
        sf.write(folder / "microphone.wav", speech, rate, subtype="PCM_16")
        browser = stack.enter_context(Browser(folder / "profile", folder / "microphone.wav"))
        browser.size(1440, 900)
        measure(Person(browser, options.pictures), product, TASKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
