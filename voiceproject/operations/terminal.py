"""Jobs from a terminal, without a server: `manage.py synthesize` and `manage.py cover`.

The job is a row like any other, running as this process' from the start, so that no worker takes it and a worker of
this machine counts it; the code that works on it is the workers' own. Afterwards row and files are removed.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files import File
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voiceproject.tenants import usage
from voiceproject.web.errors import as_public_error

USERNAME = "terminal"
CANCELED = 130  # the exit status of what Ctrl-C has ended
LOOK_SECONDS = 0.2
BAR_WIDTH = 30


def existing_file(path: str) -> Path:
    """The type of an argument that names a file to read."""
    found = Path(path)
    if not found.is_file():
        raise ArgumentTypeError(f"there is no file {path}")
    return found.absolute()


class ToldCommand(BaseCommand):
    """A command that needs the database and shows what it makes: what is missing of these is told in plain lines."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        if sys.stdout is None and options.get("stdout") is None:
            raise CommandError("Standard output is closed, so nothing could be shown; nothing was made.")
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            raise CommandError(about_database(error)) from None

    def show(self, line: str) -> None:
        """Raises OutputGone when nobody reads any more."""
        try:
            self.stdout.write(f"{line}\n")
            self.stdout.flush()
        except OSError:
            # Else the interpreter tries once more at its exit, and complains.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise OutputGone from None


class OutputGone(Exception):
    """Standard output takes nothing any more: its reader has ended, or its disk is full."""


def about_database(error: DatabaseError) -> str:
    """What to do about it, for a terminal."""
    is_behind = getattr(error.__cause__, "sqlstate", "") in ("42P01", "42703")  # Of PostgreSQL: no table, no column.
    if is_behind or str(error).startswith(("no such table", "no such column")):
        return "The database has not been set up for this version. Run: manage.py migrate"
    return f"The database cannot be used: {error}\nSee DATABASE_URL and DATA_DIR."


class JobCommand(ToldCommand):
    """A command that makes one file by one job. `formats` are what the output's name may end with."""

    formats: tuple[str, ...] = ()

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            # The bar stands where log lines would; -v 2 shows both.
            with quiet() if options["verbosity"] < 2 else nullcontext():
                return super().execute(*args, **options)
        except KeyboardInterrupt:  # before there was a job
            sys.exit(CANCELED)

    def add_output(self, parser: Any) -> None:
        endings = ", ".join(f".{ending}" for ending in self.formats)
        parser.add_argument(
            "-o", "--output", type=Path, required=True, help=f"the file to make; its ending is the format: {endings}"
        )

    def output_format(self, output: Path) -> str:
        """Checked before anything is worked on. Raises CommandError."""
        ending = output.suffix.lower().removeprefix(".")
        if ending not in self.formats:
            raise CommandError(
                f"--output must end with one of .{', .'.join(self.formats)}, not with {output.suffix!r}."
            )
        if output.is_dir() or not output.absolute().parent.is_dir() or not os.access(output.absolute().parent, os.W_OK):
            raise CommandError(f"{output} cannot be written: there is no such folder, or it may not be written to.")
        return ending

    @staticmethod
    def add_voice(parser: Any) -> None:
        voice = parser.add_mutually_exclusive_group(required=True)
        voice.add_argument("--reference", type=existing_file, help="3 to 60 s of the voice")
        voice.add_argument("--voice", type=uuid.UUID, metavar="ID", help="a saved voice, whosever it is")

    def work(self, job: Job, inputs: dict[str, Any], result: str, run: Callable[..., None], output: Path) -> None:
        """Runs the job to its end and puts the file of its field `result` into `output`.

        inputs: file field -> what is stored in it before, a path or a stored file. Raises CommandError, and SystemExit
        (130) after Ctrl-C.
        """
        self.prepare_database()
        job.tenant = terminal_user()
        with canceling() as canceled:
            try:
                for field, path in inputs.items():
                    storage = getattr(job, field).storage
                    with path.open("rb") as file:
                        setattr(job, field, storage.save(f"{job.folder}/0-{field}", File(file)))
                    job.input_bytes += usage.size_of(path)
                with told_plainly():
                    worker = f"{settings.WORKER_HOST}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
                    job.accept_running(worker, settings.WORKER_HOST)
                self.watch(job, run, canceled)
                job.refresh_from_db()
                if job.status == JobStatus.SUCCEEDED:
                    take(getattr(job, result), output)
            finally:
                job.remove()
        if job.status == JobStatus.SUCCEEDED:
            return
        if canceled.is_set():
            self.stderr.write("Canceled; nothing is left of it.")
            sys.exit(CANCELED)
        detail = f"\n{job.error_detail.strip()}" if job.error_detail.strip() else ""
        raise CommandError(f"{job.error_message or 'The job was canceled.'}{detail}")

    def watch(self, job: Job, run: Callable[..., None], canceled: threading.Event) -> None:
        """Runs the job in a thread of its own, draws what its row says, and cancels it when told to."""
        broken: list[BaseException] = []

        def work() -> None:
            try:
                run(job, threading.Event())
            except BaseException as error:
                broken.append(error)
            finally:
                connection.close()

        bar = Bar(self.stderr._out)  # type: ignore[attr-defined] # what OutputWrapper wraps
        thread = threading.Thread(target=work, name="job", daemon=True)
        thread.start()
        row = type(job)._default_manager.get(pk=job.pk)
        told = False
        while thread.is_alive():
            if canceled.is_set() and not told:
                told = True
                row.cancel()
            row.refresh_from_db(fields=["stage", "progress"])
            bar.show(row.stage, row.progress)
            thread.join(LOOK_SECONDS)
        row.refresh_from_db(fields=["status", "stage", "progress"])
        bar.end(row.stage, row.progress)
        if broken:
            raise broken[0]

    @staticmethod
    def prepare_database() -> None:
        """Sets up one that nobody has set up yet. Raises CommandError for one of another version."""
        executor = MigrationExecutor(connection)
        if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return
        if executor.loader.applied_migrations:
            raise CommandError("The database lacks migrations of this version: run manage.py migrate first.")
        call_command("migrate", interactive=False, verbosity=0)


def terminal_user() -> User:
    """Whose the jobs of the terminal are; nobody can log in as this user, and it has no key."""
    user, made = User.objects.get_or_create(username=USERNAME)
    if made:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user


@contextmanager
def canceling() -> Iterator[threading.Event]:
    """Within this block Ctrl-C and SIGTERM set the event, and end nothing by themselves."""
    canceled = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield canceled
        return
    before = {number: signal.signal(number, lambda *_: canceled.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield canceled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def quiet() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        root.setLevel(level)


@contextmanager
def told_plainly() -> Iterator[None]:
    """What the API would refuse with an error is one line here."""
    try:
        yield
    except (CommandError, OSError):
        raise
    except Exception as error:
        public = as_public_error(error)
        if public.code == "internal_error":
            raise
        raise CommandError(public.message) from error


def take(stored: Any, output: Path) -> None:
    """A stored file under a name of the user's, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=output.absolute().parent, prefix=f".{output.name}.", delete=False) as copy:
        try:
            with stored.storage.open(stored.name) as file:
                shutil.copyfileobj(file, copy)
            copy.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(copy.name, 0o666 & ~umask)
            os.replace(copy.name, output)
        except BaseException:
            os.unlink(copy.name)
            raise


class Bar:
    """How far a job is: one line that is drawn again on a terminal, elsewhere a line for each stage."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._drawn = bool(getattr(stream, "isatty", lambda: False)())
        self._started = time.monotonic()
        self._told = ""

    def show(self, stage: str, progress: int, last: bool = False) -> None:
        stage = "starting" if stage == "queued" else stage
        if not self._drawn:
            if stage != self._told or last:
                self._told = stage
                self._stream.write(f"{stage} ({progress} %)\n")
                self._stream.flush()
            return
        full = BAR_WIDTH * progress // 100
        seconds = int(time.monotonic() - self._started)
        bar = f"[{'#' * full}{'.' * (BAR_WIDTH - full)}]"
        self._stream.write(f"\r{bar} {progress:3d} %  {seconds // 60}:{seconds % 60:02d}  {stage:<10}")
        self._stream.flush()

    def end(self, stage: str, progress: int) -> None:
        self.show(stage, progress, last=True)
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
