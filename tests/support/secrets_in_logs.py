"""Everything that the tests of a process log, and the servers and workers that they start, held against every secret
that they have used."""

from __future__ import annotations

import functools
import http.client
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

import requests
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core.signals import request_started
from django.db.models.signals import post_save
from django.test.signals import setting_changed

from voiceproject.telemetry.logging import JsonFormatter
from voices.keys.models import ApiKey

# Whatever has this form is one, also where nobody has sent it yet.
RECOGNISED = re.compile(r"vck_[\w-]{20,}|whsec_[\w+/=]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY")
HEADERS = ("X-API-Key", "xi-api-key", "Authorization")
COOKIES = ("sessionid", "csrftoken")
# Of rows: secrets, and what people had said. A model that is not there is passed over.
FIELDS = {
    "WebhookSecret": ("secret", "previous"),
    "Synthesis": ("text", "reference_text"),
    "CoverJob": ("lyrics", "reference_text"),
    "Session": ("session_key",),
}
# The same in forms that are sent to a server in another process.
FORM = ("text", "input", "reference_text", "lyrics", "password", "old_password", "new_password1", "token")
# Settings and variables of an environment, but those that name a file.
SETTING = re.compile(r"(?!C2PA_)(\w+_)?(API_KEY|SECRET_KEY|ACCESS_KEY|TOKEN|PASSWORD|DSN|URL)")
SHORTEST = 12  # A shorter word may stand in a log by chance.
# So may a name of ours, which Hypothesis finds in our code and sends as a text: an error's code, a logger, a path, or
# a word of one.
NAME = re.compile(r"[a-z]{12,16}|/?[a-z]+(?:[_./][a-z0-9]+)+/?")
# Their output has to be where it can be read: a file.
SERVES = re.compile(r"\b(gunicorn|dramatiq|manage\.py|gptsovits_server\.py)( |$)|--serve( |$)")
TESTS = str(Path(__file__).parents[1])
# What `quickstart` shows once, on purpose, before it serves; the lines of its servers' logs begin with a time.
GREETING_ENDS = "Ctrl-C ends everything."
LOGGED = re.compile(r"\[?\d{4}-\d\d-\d\d[T ]|\{\"time\"")
SHOWN = re.compile(r"admin / (\S+)")


class Watch(logging.Handler):
    """Keeps every line of the root logger in a file, the files that servers write to, and every secret in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115
        self.secrets: set[str] = set()
        self.outputs: list[int] = []  # descriptors of our own, which read what was deleted since

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.write(self.format(record) + "\n")

    def add(self, secret: Any) -> None:
        # One letter again and again is a test of a length, in a text as in a path.
        if not isinstance(secret, str) or len(set(secret)) < 3:
            return
        if len(secret.strip()) >= SHORTEST and not NAME.fullmatch(secret.strip()):
            self.secrets.add(secret.strip())

    # --- what is secret ---

    def of_request(self, environ: dict[str, Any] | None = None, **kwargs: Any) -> None:
        for name in HEADERS:
            self.of_header(name, (environ or {}).get("HTTP_" + name.upper().replace("-", "_"), ""))

    def of_header(self, name: str, value: str | bytes) -> None:
        value = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        if name.lower() == "cookie":
            for part in value.split(";"):
                cookie, _, content = part.strip().partition("=")
                if cookie in COOKIES:
                    self.add(content)
        elif name.lower() in map(str.lower, HEADERS):
            self.add(value.rpartition(" ")[2])

    def of_row(self, sender: Any, instance: Any, **kwargs: Any) -> None:
        for name in FIELDS.get(sender.__name__, ()):
            self.add(getattr(instance, name, None))

    def of_setting(self, setting: str, value: Any, **kwargs: Any) -> None:
        if not SETTING.fullmatch(setting) or not isinstance(value, str):
            return
        if "://" not in value:
            self.add("" if setting.endswith("URL") else value)
            return
        # Of a URL, what is in front of the host: a password, and the key of a DSN, which is a name without one.
        parts = urlsplit(value)
        for part in (parts.username, parts.password):
            self.add(unquote(part or ""))

    def of_form(self, *forms: Any) -> None:
        for form in forms:
            for name in FORM if isinstance(form, dict) else ():
                self.add(form.get(name))

    # --- what is logged ---

    def of_process(self, arguments: Any, environment: Any, output: Any, errors: Any) -> None:
        """To be called with what a process is started with. A server's output that nobody can read is an error."""
        for name, value in (environment or {}).items():
            self.of_setting(name, value)
        if not is_service(arguments):
            return
        errors = output if errors == subprocess.STDOUT else errors
        if not hasattr(errors, "fileno"):
            raise AssertionError(f"Give its standard error a file, where the check of logs reads it: {arguments}")
        files = [errors] if errors is output or not hasattr(output, "fileno") else [output, errors]
        self.outputs += [os.dup(file.fileno()) for file in files]

    def leaks(self) -> list[str]:
        """The lines that show a secret."""
        self.flush()
        self.lines.seek(0)
        found = self._of(self.lines.read())
        for descriptor in self.outputs:
            with open(f"/proc/self/fd/{descriptor}", encoding="utf-8", errors="replace") as output:
                found += self._of(without_greeting(output.read(), self.add))
        return found

    def _of(self, log: str) -> list[str]:
        # JSON writes a quotation mark, a backslash and a line break of a text in its own way.
        spelled = (
            spelling
            for secret in self.secrets
            for spelling in {secret, secret.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")}
        )
        known = [spelling for spelling in spelled if spelling in log]
        lines = [line for line in log.splitlines() if RECOGNISED.search(line) or any(part in line for part in known)]
        # A text of several lines is in none of them.
        return lines or [repr(part) for part in known]

    def close(self) -> None:
        for descriptor in self.outputs:
            os.close(descriptor)
        self.outputs.clear()
        self.lines.close()
        super().close()


def is_service(arguments: Any) -> bool:
    """Whether a test, and not the product itself, starts a server, a worker or a command of ours."""
    line = arguments if isinstance(arguments, str) else " ".join(map(str, arguments))
    frame = sys._getframe(1)
    while frame.f_code.co_filename in (__file__, subprocess.__file__):
        assert frame.f_back is not None
        frame = frame.f_back
    return bool(SERVES.search(line)) and frame.f_code.co_filename.startswith(TESTS)


def without_greeting(log: str, secret: Callable[[str], None]) -> str:
    """A log of quickstart's without what it shows once; the password there is told to `secret`."""
    greeting, end, rest = log.partition(GREETING_ENDS)
    if not end:
        return log
    for found in SHOWN.findall(greeting):
        secret(found)
    return "\n".join(line for line in greeting.splitlines() if LOGGED.match(line)) + rest


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    start: Any = subprocess.Popen.__init__
    run: Any = subprocess.run
    send, put, identity = requests.Session.request, http.client.HTTPConnection.putheader, ApiKey.identity
    encode = MD5PasswordHasher.encode

    @functools.wraps(start)
    def started(self: Any, args: Any, *more: Any, **how: Any) -> None:
        if not how.pop("kept", False):
            watch.of_process(args, how.get("env"), how.get("stdout"), how.get("stderr"))
        start(self, args, *more, **how)

    @functools.wraps(run)
    def ran(args: Any, **how: Any) -> Any:
        """What a command has written is at hand when it has ended."""
        if not is_service(args) or not how.get("capture_output"):
            return run(args, **how)
        done = run(args, kept=True, **how)
        with tempfile.TemporaryFile() as file:
            for output in (done.stdout, done.stderr):
                file.write(output if isinstance(output, bytes) else output.encode(errors="replace"))
            file.flush()
            watch.of_process(args, how.get("env"), file, subprocess.STDOUT)
        return done

    @functools.wraps(send)
    def sent(self: Any, *arguments: Any, **how: Any) -> Any:
        watch.of_form(how.get("data"), how.get("json"))
        return send(self, *arguments, **how)

    @functools.wraps(put)
    def told(self: Any, header: Any, *values: Any) -> None:
        for value in values:
            watch.of_header(header.decode() if isinstance(header, bytes) else header, value)
        put(self, header, *values)

    def identified(secret: str) -> dict[str, str]:
        watch.add(secret)
        return identity(secret)

    @functools.wraps(encode)
    def encoded(self: Any, password: str, salt: str) -> str:
        watch.add(password)  # one that is set, and one that is tried
        return encode(self, password, salt)

    with ExitStack() as stack:
        stack.callback(watch.close)
        for owner, name, by in (
            (subprocess.Popen, "__init__", started),
            (subprocess, "run", ran),
            (requests.Session, "request", sent),
            (http.client.HTTPConnection, "putheader", told),
            (ApiKey, "identity", staticmethod(identified)),
            (MD5PasswordHasher, "encode", encoded),
        ):
            stack.enter_context(mock.patch.object(owner, name, by))
        logging.getLogger().addHandler(watch)
        stack.callback(logging.getLogger().removeHandler, watch)
        for signal, heard in (
            (request_started, watch.of_request), (post_save, watch.of_row), (setting_changed, watch.of_setting),
        ):  # fmt: skip
            signal.connect(heard)
            stack.callback(signal.disconnect, heard)
        yield watch
