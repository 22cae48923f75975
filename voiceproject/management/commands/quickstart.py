"""`manage.py quickstart`: the whole product on one machine, with one command, until Ctrl-C."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import sys
import time
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError

from voiceproject import __version__
from voiceproject.operations.supervisor import Ended, Supervisor
from voiceproject.operations.terminal import OutputGone, ToldCommand
from voiceproject.settings import env
from voices.keys.models import ApiKey

DEMO_USER = "demo"
ADMIN_USER = "admin"
LOCAL = ("127.0.0.1", "localhost", "::1")
WORKER_THREADS = 4  # Beside those that jobs may hold, so that no queue waits for another.
# How often an idle worker thread looks whether it is to end. Dramatiq's own second, twice over, is felt at Ctrl-C.
WORKER_TIMEOUT_MS = 200


class Command(ToldCommand):
    help = "Migrates, makes a demo key and an admin login, and serves API and worker until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
        parser.add_argument("--no-worker", action="store_true", help="serve the API only; covers wait for a worker")

    def handle(self, *args: Any, **options: Any) -> None:
        host, port, worker = options["host"], options["port"], not options["no_worker"]
        check_free(host, port)
        try:
            self.say(f"Starting. All data is in {settings.DATA_DIR}.")
            call_command("migrate", interactive=False, verbosity=0)
            self.serve(host, port, worker)
        except KeyboardInterrupt:  # Before the supervisor took the signals over.
            pass
        except OutputGone:  # As after `quickstart | head`: nobody would see the key.
            sys.exit(1)
        with suppress(OutputGone):
            self.say("\nStopped.")

    def serve(self, host: str, port: int, worker: bool) -> None:
        started = time.monotonic()
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        base = f"http://{shown}:{port}"
        try:
            with Supervisor() as supervisor:
                for name, argv in commands(host, port, worker).items():
                    supervisor.start(name, argv, cwd=settings.BASE_DIR, env=environment(host))
                health = supervisor.wait_for(f"{base}/health", f"{shown}:{port}", self.say)
                if health is None:
                    return
                self.introduce(base, worker, health, time.monotonic() - started)
                if host not in LOCAL:
                    warning = "Others can reach this server, and nothing encrypts what they send: see the README."
                    self.say(self.style.WARNING(f"{warning}\n"))
                self.say("Ctrl-C ends everything. The log:\n")
                supervisor.log.release()
                supervisor.run()
        except Ended as error:
            raise CommandError(str(error)) from None

    def say(self, line: str = "") -> None:
        self.show(line)

    def introduce(self, base: str, worker: bool, health: dict[str, Any], seconds: float) -> None:
        say = self.say
        say()
        say(self.style.SUCCESS(f"Voice cloning and AI covers {__version__}, engine: {settings.VOICE_ENGINE}"))
        say(f"Ready after {seconds:.0f} s.\n")
        say(f"  Studio      {base}/          speak and sing in the browser, with the API key")
        say(f"  API docs    {base}/docs      every endpoint, to try")
        say(f"  Health      {base}/health    {health['status']}")
        say(f"  Console     {base}/admin/    for operators, with the login\n")
        key = self.demo_key()
        self.admin_login()
        for problem in what_is_wrong(health):
            say(self.style.WARNING(f"  Not well    {problem}"))
        if settings.HTTPS:
            warning = "HTTPS=true: requests without a TLS proxy before this server are redirected to https."
            say(self.style.WARNING(f"  Note        {warning}"))
        say("\nPaste these into another terminal.\n")
        speak, cover, fetch = examples(base, key)
        say(f"Speech in the voice of a short recording, into hello.wav:\n\n{speak}\n")
        if worker:
            say(f"A song in that voice; this submits it and keeps the job's id in JOB:\n\n{cover}\n")
            say(f"This waits for the cover and downloads it, into cover.wav:\n\n{fetch}\n")
        else:
            say("There is no worker (--no-worker), so covers are left out here.\n")

    def demo_key(self) -> str:
        """A new key's secret: those of earlier runs are not kept, and the lines below need one."""
        user, _ = User.objects.get_or_create(username=DEMO_USER)
        is_first = not ApiKey.objects.for_tenant(user).exists()
        _, secret = ApiKey.objects.issue(user, "quickstart")
        told = "shown this once" if is_first else "new, shown this once; keys of earlier runs still work"
        self.say(f"  API key     {secret}   ({told})")
        return secret

    def admin_login(self) -> None:
        admin = User.objects.filter(is_superuser=True).order_by("pk").first()
        if admin is not None:
            again = f"{sys.executable} {settings.BASE_DIR / 'manage.py'} changepassword {shlex.quote(admin.username)}"
            self.say(f"  Login       {admin.username}, with its password; to set another: {again}")
            return
        password = secrets.token_urlsafe(12)
        User.objects.create_superuser(ADMIN_USER, password=password)
        self.say(f"  Login       {ADMIN_USER} / {password}   (shown this once)")


def examples(base: str, key: str) -> tuple[str, str, str]:
    """Three lines for a shell, in whatever folder it stands: speech, a cover, and the cover's file."""
    curl = f'curl -sS --fail-with-body -H "X-API-Key: {key}"'
    jobs = f"{base}/api/v1/cover/jobs"
    voice = sample("reference.flac")
    speak = (
        f'{curl} --form-string "text=Hello, this is my new voice." -F reference_audio=@{voice} '
        f"{base}/api/v1/voice/synthesize -o hello.wav && ls -l hello.wav"
    )
    # Of an error, which has no id, the second line shows all that was answered.
    cover = (
        f"JOB=$({curl} -F song=@{sample('song.ogg')} -F reference_voice=@{voice} {jobs} "
        """| sed 's/.*"job_id": *"\\([^"]*\\)".*/\\1/'); echo "$JOB" """
    ).rstrip()
    fetch = (
        f'while {curl} -H "Prefer: wait=5" {jobs}/$JOB | grep -E \'"status": *"(queued|running)"\' >/dev/null; '
        f"do echo still at work; done; {curl} {jobs}/$JOB/result -o cover.wav && ls -l cover.wav"
    )
    return speak, cover, fetch


def sample(name: str) -> str:
    """A file that the project carries, as a shell takes it in whatever folder the other terminal stands."""
    return shlex.quote(str(settings.BASE_DIR / "voiceproject" / "samples" / name))


def what_is_wrong(health: dict[str, Any]) -> list[str]:
    """What of /health is not as it should be, one line each; nothing where all is well."""
    if health["status"] == "healthy":
        return []
    engine, checks = health["engine"], health["checks"]
    wrong = [] if engine["available"] else [f"engine {engine['name']}: {engine['detail'] or 'not available'}"]
    return wrong + [f"{name}: {checks[name]}" for name in ("broker", "storage") if checks[name] == "unreachable"]


def check_free(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise CommandError(f"--port must be from 1 to 65535, not {port}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CommandError(f"Cannot listen on {host}:{port}: {error}. Choose another with --port or --host.") from None


def commands(host: str, port: int, worker: bool) -> dict[str, list[str]]:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    found = {
        "web server": [
            sys.executable, "-m", "gunicorn", "voiceproject.asgi", "--config", "python:voiceproject.serving",
            "--bind", address,
        ]
    }  # fmt: skip
    if worker:
        threads = str(
            settings.COVER_CONCURRENCY + settings.SYNTHESIS_CONCURRENCY + settings.TRAINING_CONCURRENCY + WORKER_THREADS
        )
        found["worker"] = [
            sys.executable, "-m", "dramatiq", "voiceproject.worker", "--processes", "1", "--threads", threads,
            "--skip-logging", "--worker-shutdown-timeout", "3000",
        ]  # fmt: skip
    return found


def environment(host: str) -> dict[str, str]:
    """The children's environment. They start in the checkout, so paths are absolute in it.

    A server answers to the name under which the printed lines call it, and one that was told to listen to others, to
    any name that they use for it unless ALLOWED_HOSTS says which.
    """
    names = list(settings.ALLOWED_HOSTS)
    if host not in ("0.0.0.0", "::"):
        names.append(f"[{host}]" if ":" in host else host)
    else:
        names.append("127.0.0.1" if env.values.get("ALLOWED_HOSTS") else "*")
    return {
        **os.environ,
        **env.for_children,
        "DATA_DIR": str(settings.DATA_DIR),
        "ALLOWED_HOSTS": ",".join(dict.fromkeys(names)),
        "VOICEPROJECT_LIFELINE": "1",
        "dramatiq_worker_timeout": str(WORKER_TIMEOUT_MS),
    }
