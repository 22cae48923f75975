"""A headless Chromium, driven over the DevTools protocol as a person would: real clicks, real keys, chosen files.

What the page asked for, and everything that it complained of, is kept: requests, console errors, exceptions and
violations of its Content-Security-Policy.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
import websocket

DOMAINS = ("Page", "Runtime", "Network", "Log", "DOM")
START_SECONDS = 60
ANSWER_SECONDS = 30
# How the protocol says that a page went away while it was asked something. The next one may well answer.
GONE = (
    "Inspected target navigated or closed", "Execution context was destroyed.",
    "Cannot find default execution context", "Cannot find context with specified id",
)  # fmt: skip


class Navigated(RuntimeError):
    pass


class Browser:
    """`microphone`: a WAV file that getUserMedia hears, from its beginning, over and over; `refused`: there is a
    microphone, and no page gets it."""

    def __init__(
        self, profile: Path, microphone: Path | None = None, language: str = "en-US", refused: bool = False
    ) -> None:
        self.profile = profile
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._ids = 0
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
            f"--accept-lang={language}", f"--user-data-dir={profile}", "--remote-debugging-port=0",
        ]  # fmt: skip
        if microphone is not None:
            arguments += [
                "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}",
            ]  # fmt: skip
        if refused:
            arguments += ["--use-fake-device-for-media-stream", "--deny-permission-prompts"]
        self._process = subprocess.Popen(
            ["chromium", *arguments, "about:blank"],
            env={**os.environ, "LANGUAGE": language.partition("-")[0]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._socket = self._connect()
            for domain in DOMAINS:
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def tab(self) -> Browser:
        """Another tab of this browser, on the same storage. It ends with the browser, and is not to be closed."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        port = (self.profile / "DevToolsActivePort").read_text().split()[0]
        other = object.__new__(Browser)
        other.__dict__.update(self.__dict__, requests=[], complaints=[], _ids=0)
        other._socket = websocket.create_connection(
            f"ws://127.0.0.1:{port}/devtools/page/{target}", timeout=ANSWER_SECONDS, suppress_origin=True
        )
        for domain in DOMAINS:
            other.call(f"{domain}.enable")
        return other

    def _connect(self) -> websocket.WebSocket:
        deadline = time.monotonic() + START_SECONDS
        port = self.profile / "DevToolsActivePort"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"chromium ended with status {self._process.returncode}")
            if port.exists() and port.read_text().strip():
                base = f"http://127.0.0.1:{port.read_text().split()[0]}"
                pages = [page for page in requests.get(f"{base}/json", timeout=10).json() if page["type"] == "page"]
                if pages:
                    return websocket.create_connection(
                        pages[0]["webSocketDebuggerUrl"], timeout=ANSWER_SECONDS, suppress_origin=True
                    )
            time.sleep(0.05)
        raise TimeoutError("chromium opened no page")

    # --- The protocol ------------------------------------------------------------------------------------------------

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and gives its result; what happened meanwhile is noted."""
        self._ids += 1
        mine = self._ids
        self._socket.send(json.dumps({"id": mine, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == mine:
                if "error" in message:
                    gone = message["error"].get("message") in GONE
                    raise (Navigated if gone else RuntimeError)(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(part.get("value", part)) for part in event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            entry = event["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")

    def evaluate(self, expression: str) -> Any:
        """The JSON value of an expression, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", str(answer)))
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """The expression's value as soon as it is true."""
        deadline = time.monotonic() + seconds
        while (value := self._value(expression)) in (None, False, 0, ""):
            if time.monotonic() > deadline:
                seen = self.evaluate("document.querySelector('main')?.innerText ?? ''")
                raise AssertionError(f"never true: {expression}\n{self.complaints}\n{seen}")
            time.sleep(0.05)
        return value

    def _value(self, expression: str) -> Any:
        """An expression's value, true for an element; none while one page gives way to the next, and where a part of
        what is asked for is not there yet."""
        waiting = f"""(async () => {{
            try {{
                const value = await ({expression});
                return value instanceof Node ? true : value;
            }} catch (error) {{
                if (error instanceof TypeError) return null;
                throw error;
            }}
        }})()"""
        try:
            return self.evaluate(waiting)
        except Navigated:
            return None

    # --- What a person does ------------------------------------------------------------------------------------------

    def open(self, url: str, before: str = "") -> None:
        """before: a script that runs in the page ahead of its own."""
        if before:
            self.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def click(self, selector: str) -> None:
        where = f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                if (!element || element.disabled || !element.checkVisibility()) return null;
                element.scrollIntoView({{block: 'center', behavior: 'instant'}});
                const box = element.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                const hit = document.elementFromPoint(x, y);
                return element === hit || element.contains(hit) || hit?.contains(element) ? [x, y] : null;
            }})()"""
        # Once it stands still: what loads around it moves it, and the press would land beside it.
        place, before = self.wait(where), None
        while place != before:
            time.sleep(0.1)
            before, place = place, self.wait(where)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def write(self, selector: str, text: str) -> None:
        """Replaces what stands in a field."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"{field}?.checkVisibility() && !{field}.disabled")
        self.evaluate(f"{field}.focus(); {field}.select()")
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """modifiers: 1 alt, 2 control, 4 meta, 8 shift."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key if key != " " else "Space",
                windowsVirtualKeyCode=codes[key], modifiers=modifiers, text=text if kind == "keyDown" else "",
            )  # fmt: skip

    def choose_file(self, selector: str, *paths: Path) -> None:
        self.wait(f"!!document.querySelector({json.dumps(selector)})")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def other_hosts(self, base: str) -> list[str]:
        """Requests that went, or would have gone, elsewhere than to `base`."""
        own = urlsplit(base).netloc
        parts = [urlsplit(url) for url in self.requests]
        return [part.geturl() for part in parts if part.netloc != own and part.scheme not in ("data", "blob", "about")]
