"""The servers that a fleet shares, started on free ports, killed and restarted: PostgreSQL, Redis, an S3 server."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.running.servers import free_port
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres. Debian does not put it on the PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found and (initdb := shutil.which("initdb")):
        found = [Path(initdb).resolve().parent]
    return max(found, default=None)


def missing() -> str:
    """What a storm needs and this machine lacks; empty when nothing."""
    lacking = [] if postgres_programs() else ["PostgreSQL"]
    if shutil.which("redis-server") is None:
        lacking.append("Redis")
    if not sys.platform.startswith("linux"):
        lacking.append("Linux")
    return ", ".join(lacking)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Server(ABC):
    """One server process, its log in `folder`."""

    name = ""
    ends_by = signal.SIGTERM

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.host = host
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    def ready(self) -> bool:
        return answers(self.port)

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        until(self.ready, 60, f"{self.name} on port {self.port}")

    def stop(self, number: int = 0) -> None:
        if self.process is None:
            return
        self.process.send_signal(number or self.ends_by)
        try:
            self.process.wait(20)
        except BaseException as error:
            # Also when somebody interrupts this: no server may stay.
            self.process.kill()
            self.process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        self.process = None


class Postgres(Server):
    """A cluster of its own, trusting everybody who reaches it. `stop(SIGQUIT)` is what -m immediate does."""

    name = "postgres"
    ends_by = signal.SIGINT  # SIGTERM would wait for every client, ourselves among them

    def __init__(self, folder: Path, host: str = "127.0.0.1", trusted: str = "127.0.0.1/32") -> None:
        super().__init__(folder, host)
        self.programs = postgres_programs() or Path()
        self.data = folder / "postgres"
        self.data.mkdir()
        if os.geteuid() == 0:
            os.chown(self.data, pwd.getpwnam("postgres").pw_uid, -1)
        initdb = [str(self.programs / "initdb"), "-D", str(self.data), "-A", "trust", "-U", "voice", "-N"]
        subprocess.run(self._as_postgres(initdb), check=True, stdout=subprocess.DEVNULL, cwd="/")
        if trusted != "127.0.0.1/32":
            with (self.data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {trusted} trust\n")

    @staticmethod
    def _as_postgres(command: list[str]) -> list[str]:
        if os.geteuid() != 0:
            return command
        # setpriv gives its place to the server, so that a signal reaches that.
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]

    def command(self) -> list[str]:
        options = {"listen_addresses": self.host, "unix_socket_directories": "", "fsync": "off", "max_connections": 200}
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        return self._as_postgres([str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port), *flags])

    def ready(self) -> bool:
        check = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(check).returncode == 0

    def url(self, host: str = "127.0.0.1") -> str:
        return f"postgres://voice@{host}:{self.port}/postgres"


class Redis(Server):
    name = "redis"

    def command(self) -> list[str]:
        bind = ["--bind", self.host, "--protected-mode", "no", "--save", "", "--dir", str(self.folder)]
        return ["redis-server", "--port", str(self.port), *bind]

    def url(self, host: str = "127.0.0.1") -> str:
        return f"redis://{host}:{self.port}/0"


class Bucket(Server):
    """moto's S3 server with one bucket, in memory: a restart forgets everything."""

    name = "s3"
    keys = {"AWS_ACCESS_KEY_ID": "ci", "AWS_SECRET_ACCESS_KEY": "ci-secret"}

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", self.host, "-p", str(self.port)]

    def start(self) -> None:
        import boto3
        from botocore.config import Config

        super().start()
        endpoint = f"http://127.0.0.1:{self.port}"
        config = Config(s3={"addressing_style": "path"})
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            config=config,
            aws_access_key_id="ci",
            aws_secret_access_key="ci-secret",
        )
        client.create_bucket(Bucket="voices")
        client.close()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"s3://voices/faults?endpoint=http://{host}:{self.port}&region=us-east-1"


def end_cleanly_when_told() -> None:
    """SIGTERM and SIGHUP end this process as Ctrl-C does, so that what it started is ended too.

    The first of them is the last: another one would break off the cleaning up.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, end)


def run_module(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """`python -m` with these arguments, its output kept. It is told to end when it takes longer, or we are interrupted.

    `subprocess.run` would kill it then, and the servers and workers that it started would stay.
    """
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=seconds)
    except BaseException:
        process.terminate()
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield


def environment(data_dir: Path, **extra: str) -> dict[str, str]:
    """Of a process of the product: what the machine has for programs, and nothing of a developer's own settings."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "TMPDIR")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "DJANGO_SETTINGS_MODULE": "voiceproject.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(data_dir),
        "SECRET_KEY": "a key for the faults alone, long enough",
        **extra,
    }


class Worker:
    """`dramatiq voiceproject.worker`: a main process, its worker process and what that runs, in one process group."""

    def __init__(self, environment: dict[str, str], log: Path, prefix: tuple[str, ...] = ()) -> None:
        dramatiq = [sys.executable, "-m", "dramatiq", "voiceproject.worker", "--processes", "1", "--threads", "2"]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*prefix, *dramatiq, "--worker-shutdown-timeout", "15000"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def signal_all(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def members(self) -> list[int]:
        return group_members(self.process.pid)

    def child(self) -> int:
        """The worker process below the main one, 0 as long as there is none."""
        return max((pid for pid in self.members() if pid != self.process.pid), default=0)

    def stop(self, seconds: float = 20) -> bool:
        """Asks it to end; whether it did so in time, and nothing of it is left."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        ended = not self.members()
        self.signal_all(signal.SIGKILL)
        self.process.wait()
        return ended


def group_members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry.name))
    return sorted(found)


def processes_with(text: str) -> dict[int, str]:
    """The processes that have a text in the environment that they were started with: {pid: command line}."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found
