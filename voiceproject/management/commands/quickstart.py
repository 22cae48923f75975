"""`manage.py quickstart`: the whole product on one machine, with one command, until Ctrl-C."""

from __future__ import annotations

import os
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from voiceproject.settings import env
from voices.keys.models import ApiKey

DEMO_USER = "demo"
ADMIN_USER = "admin"
STOP_SECONDS = 3.5  # Everything is to be over in five, on a busy machine too.
WORKER_THREADS = 4  # Beside those that jobs may hold, so that no queue waits for another.


class Command(BaseCommand):
    help = "Migrates, makes a demo key and an admin login on the first run, and serves API and worker until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
        parser.add_argument("--no-worker", action="store_true", help="serve the API only; covers wait for a worker")

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        check_free(host, port)
        call_command("migrate", interactive=False, verbosity=0)
        self.introduce(host, port)
        sys.stdout.flush()
        supervise(children(host, port, worker=not options["no_worker"]), self)

    def introduce(self, host: str, port: int) -> None:
        base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else f'[{host}]' if ':' in host else host}:{port}"
        say = self.stdout.write
        say("")
        say(self.style.SUCCESS(f"Voice cloning and AI covers, engine: {settings.VOICE_ENGINE}"))
        say(f"  API         {base}/api/v1     docs {base}/docs     health {base}/health")
        say(f"  Studio      {base}/     a tenant's page {base}/account")
        say(f"  Console     {base}/admin/")
        secret = self.first_key()
        self.first_admin()
        key = secret or "YOUR-KEY"
        song, voice = sample("song.ogg"), sample("reference.flac")
        say("\nTry it, in another terminal:\n")
        say(
            f'curl -f -X POST {base}/api/v1/voice/synthesize -H "X-API-Key: {key}" '
            f'-F "text=Hello, this is my new voice." '
            f"-F reference_audio=@{voice} -o hello.wav\n"
        )
        say(
            f'curl -f -X POST {base}/api/v1/cover/jobs -H "X-API-Key: {key}" -F song=@{song} '
            f"-F reference_voice=@{voice}\n"
        )
        say(f'curl -f {base}/api/v1/cover/jobs -H "X-API-Key: {key}"\n')
        if host not in ("127.0.0.1", "localhost", "::1"):
            say(
                self.style.WARNING(
                    "Others can reach this server, and nothing encrypts what they send: see the README.\n"
                )
            )
        say("Ctrl-C ends everything.\n")

    def first_key(self) -> str | None:
        """The secret of the demo key, on the run that makes it; later runs only say which key there is."""
        user, _ = User.objects.get_or_create(username=DEMO_USER)
        keys = [key for key in ApiKey.objects.for_tenant(user) if key.is_valid()]
        again = f"{sys.executable} manage.py create_api_key {DEMO_USER}"
        if keys:
            widest = max(keys, key=lambda key: len(key.scopes))  # The lines below need more than one scope.
            self.stdout.write(f"  API key     {widest.prefix}… from an earlier run; another one: {again}")
            return None
        _, secret = ApiKey.objects.issue(user, "quickstart")
        self.stdout.write(f"  API key     {secret}   (shown this once; another one: {again})")
        return secret

    def first_admin(self) -> None:
        if User.objects.filter(is_superuser=True).exists():
            again = f"{sys.executable} manage.py changepassword {ADMIN_USER}"
            self.stdout.write(f"  Login       {ADMIN_USER}, from an earlier run; another password: {again}")
            return
        password = secrets.token_urlsafe(12)
        User.objects.create_superuser(ADMIN_USER, password=password)
        self.stdout.write(f"  Login       {ADMIN_USER} / {password}   (shown this once)")


def sample(name: str) -> str:
    """A file that the project carries, as a shell takes it in whatever folder the other terminal stands."""
    return shlex.quote(str(settings.BASE_DIR / "voiceproject" / "samples" / name))


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


def children(host: str, port: int, worker: bool) -> dict[str, list[str]]:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    commands = {
        "web": [
            sys.executable, "-m", "gunicorn", "voiceproject.wsgi", "--config", "python:voiceproject.serving",
            "--bind", address,
        ]
    }  # fmt: skip
    if worker:
        threads = str(settings.COVER_CONCURRENCY + settings.SYNTHESIS_CONCURRENCY + WORKER_THREADS)
        commands["worker"] = [
            sys.executable, "-m", "dramatiq", "voiceproject.worker", "--processes", "1", "--threads", threads,
            "--skip-logging", "--worker-shutdown-timeout", "3000",
        ]  # fmt: skip
    return commands


def environment(host: str) -> dict[str, str]:
    """The children's environment. A server that was told to listen to others answers to the name they use for it."""
    values = dict(os.environ)
    if not env.values.get("ALLOWED_HOSTS") and host not in settings.ALLOWED_HOSTS:
        names = ["*"] if host in ("0.0.0.0", "::") else [*settings.ALLOWED_HOSTS, f"[{host}]" if ":" in host else host]
        values["ALLOWED_HOSTS"] = ",".join(names)
    return values


def supervise(commands: dict[str, list[str]], command: BaseCommand) -> None:
    """Runs the children until Ctrl-C, SIGTERM, or the end of one of them; then ends them all.

    Each child stands in a session of its own, so that Ctrl-C reaches only this process, and reads its standard input:
    a pipe that closes when this process is gone, however it went.
    """
    host = commands["web"][-1].rsplit(":", 1)[0].strip("[]")
    running: dict[str, subprocess.Popen[bytes]] = {}
    stop: list[int] = []
    woken, wake = os.pipe()

    def told_to_stop(received: int, frame: Any) -> None:
        stop.append(received)
        os.write(wake, b".")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told_to_stop)
    failed = None
    try:
        for name, argv in commands.items():
            running[name] = subprocess.Popen(
                argv,
                cwd=settings.BASE_DIR,
                env={**environment(host), "VOICEPROJECT_LIFELINE": "1"},
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        while not stop and failed is None:
            select.select([woken], [], [], 0.2)
            failed = next((name for name, child in running.items() if child.poll() is not None), None)
    finally:
        end(list(running.values()))
    if failed is not None and not stop:
        raise CommandError(f"The {failed} process ended (status {running[failed].returncode}); see its lines above.")
    command.stdout.write("\nStopped.")


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
