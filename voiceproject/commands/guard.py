"""The guard of one external command: starts it, and leaves nothing of it behind.

Run as a plain script, with the standard library alone and outside any virtual environment:

    python -I -S guard.py RUNNER_PID STATUS_FD STDIN_FD GRACE_SECONDS DEADLINE_SECONDS MEMORY_BYTES CWD ARGV...

Standard input is the lifeline: a pipe whose other end the runner holds. A byte on it, or its end (the runner
closed it, or died, by SIGKILL too), ends the command with everything that came from it; so do SIGTERM, SIGINT
and SIGHUP, a change of parent, and the deadline. When the command exits by itself, what it left running is
ended too. Only the line "deadline SECONDS" ends nothing: it puts the deadline so far from now.

STDIN_FD becomes the command's standard input; 0 gives it an empty one.

On Linux the guard is a subreaper: a daemon that was forked twice, or a child in a session of its own, becomes
the guard's child when its parent exits, so that all of them are found below the guard in /proc until none is
left. Ending is SIGTERM (and SIGCONT, for what is stopped), a grace, then SIGKILL, again and again until the
tree is empty. Elsewhere (macOS) there is neither, and only the command's process group is ended.

PR_SET_PDEATHSIG would do less: it fires when the *thread* that spawned the child ends, and spares
grandchildren.

STATUS_FD gets lines: "pid N" (the command; its session and process group have the same number), "fail CODE
REASON" (it could not be started; 127: not found, 126: anything else), "until SECONDS" (the deadline was put
there, while the command ran) and last "done RETURNCODE PEAK_RSS_BYTES LEFT WHY": RETURNCODE is negative for a
signal, LEFT counts processes that even SIGKILL did not end within five seconds, WHY is "exited" (by itself),
"deadline" or "asked".

The runner imports `end_marked` from here, for when the guard itself was killed.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import select
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
LIFELINE_FD = 0
POLL_SECONDS = 0.25
KILL_SECONDS = 5.0
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
ON_LINUX = sys.platform.startswith("linux")


def become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def processes() -> dict[int, tuple[int, int, int]]:
    """Every process that /proc shows and that still runs: {pid: (parent, process group, session)}."""
    table: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command's name stands in brackets and may hold anything, brackets and blanks too.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        # A zombie with threads is a process whose first thread ended alone: it runs, and may have children.
        if fields and (fields[0] not in (b"Z", b"X") or int(fields[17]) > 1):
            table[int(name)] = (int(fields[1]), int(fields[2]), int(fields[3]))
    return table


def below(roots: set[int], table: dict[int, tuple[int, int, int]]) -> dict[int, int]:
    """The children of the roots, their children, and so on: {pid: process group}."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found: dict[int, int] = {}
    pending = list(roots)
    while pending:
        for pid in children.pop(pending.pop(), ()):
            pending.append(pid)
            found[pid] = table[pid][1]
    return found


def signal_process(pid: int, number: int, group: bool = False) -> bool:
    """False when there is no such process (or group), or it is another user's."""
    try:
        (os.killpg if group else os.kill)(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_marked(mark: str, session: int = 0, seconds: float = 2.0) -> list[int]:
    """SIGKILL for each process that has `mark` (NAME=value) in the environment it was started with, for all
    in the sessions of those and in the given one, and for all below them, until none is left.

    Returns the pids that are left after that many seconds. Where there is no /proc, only the process group
    that has the session's number is killed.
    """
    if not ON_LINUX:
        if session:
            signal_process(session, signal.SIGKILL, group=True)
        return []
    wanted = mark.encode()
    sessions = {session} if session else set()
    until = time.monotonic() + seconds
    while True:
        table = processes()
        found = {pid for pid in table if _has_variable(pid, wanted)}
        sessions |= {table[pid][2] for pid in found}
        found |= {pid for pid, (_, _, its_session) in table.items() if its_session in sessions}
        found |= below(found, table).keys()
        if not found or time.monotonic() > until:
            return sorted(found)
        for pid in found:
            signal_process(pid, signal.SIGKILL)
        time.sleep(0.005)


def _has_variable(pid: int, wanted: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return wanted in file.read().split(b"\0")
    except OSError:
        return False  # it ended meanwhile, or it is another user's


class Guard:
    def __init__(self, runner_pid: int, status_fd: int, grace_seconds: float, deadline_seconds: float):
        self.runner_pid = runner_pid
        self.status_fd = status_fd
        self.grace_seconds = grace_seconds
        self.deadline = time.monotonic() + deadline_seconds
        self.command_pid = 0
        self.returncode: int | None = None
        self.asked_to_end = False
        os.set_inheritable(status_fd, False)
        # Signals end the waits below: their numbers are written to this pipe.
        self.wakeup_fd, write_fd = os.pipe()
        os.set_blocking(self.wakeup_fd, False)
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, self.on_signal)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def on_signal(self, number: int, frame: object) -> None:
        self.asked_to_end = self.asked_to_end or number != signal.SIGCHLD

    def tell(self, line: str) -> None:
        try:
            os.write(self.status_fd, line.encode("utf-8", "replace") + b"\n")
        except OSError:
            self.asked_to_end = True  # nobody reads: the runner is gone

    def start(self, argv: list[str], cwd: str, stdin_fd: int, memory_bytes: int) -> None:
        # A signal must not meet the child while it still has the guard's handlers, which would swallow it.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()  # safe here, unlike in the runner: this process has one thread
        if pid:
            self.command_pid = pid
            if stdin_fd:
                # The runner is to notice when the command no longer reads, or writes, what goes through these two.
                os.close(stdin_fd)
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, 1)
                os.close(nothing)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            self.tell(f"pid {pid}")
            return
        try:
            os.setsid()
            source = stdin_fd or os.open(os.devnull, os.O_RDWR)
            os.dup2(source, LIFELINE_FD)
            os.close(source)
            # exec keeps what is ignored: SIGPIPE by Python, SIGINT and SIGQUIT in a shell's background job.
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                if signal.getsignal(number) not in (signal.SIG_DFL, None):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if memory_bytes:
                resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
            os.chdir(cwd)
            os.execvp(argv[0], argv)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            self.tell(f"fail {127 if missing else 126} {error.strerror}: {error.filename or argv[0]}")
        except ValueError as error:
            self.tell(f"fail 126 {error}")
        finally:
            os._exit(127)

    def reap(self) -> bool:
        """Collects what has ended. True while the guard still has children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.command_pid:
                self.returncode = os.waitstatus_to_exitcode(status)

    def wait(self, seconds: float, lifeline: bool = False) -> bool:
        """Waits for a signal (SIGCHLD among them) or the lifeline; True when the lifeline speaks or ends."""
        poller = select.poll()
        poller.register(self.wakeup_fd, select.POLLIN)
        if lifeline:
            poller.register(LIFELINE_FD, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(max(0.0, seconds) * 1000)}
        if self.wakeup_fd in ready:
            os.read(self.wakeup_fd, 4096)
        return LIFELINE_FD in ready

    def watch(self) -> str:
        """Returns why, when the command has exited or is to be ended."""
        while True:
            self.reap()
            if self.returncode is not None:
                return "exited"
            left = self.deadline - time.monotonic()
            if left <= 0:
                return "deadline"
            # The parent is looked at too: a process forked from the runner may hold the lifeline open.
            if self.asked_to_end or os.getppid() != self.runner_pid:
                return "asked"
            if self.wait(min(POLL_SECONDS, left), lifeline=True):
                self.listen()

    def listen(self) -> None:
        """The runner wrote to the lifeline, or let go of it."""
        said = os.read(LIFELINE_FD, 4096)
        if not re.fullmatch(rb"(deadline \d{1,9}(\.\d{1,9})?\n)+", said):
            self.asked_to_end = True
            return
        self.reap()
        if self.returncode is not None:
            return
        for seconds in said.decode().split()[1::2]:
            self.deadline = time.monotonic() + float(seconds)
            self.tell(f"until {seconds}")

    def tree(self) -> dict[int, int]:
        """What is left of the command, {pid: process group}."""
        if ON_LINUX:
            return below({os.getpid()}, processes())
        alive = signal_process(self.command_pid, 0, group=True)
        return {self.command_pid: self.command_pid} if alive else {}

    def end_tree(self) -> int:
        """Ends all that came from the command; returns how many are left, 0 but for the unkillable."""
        started = time.monotonic()
        told: set[int] = set()
        while time.monotonic() - started < self.grace_seconds + KILL_SECONDS:
            children = self.reap()
            tree = self.tree()
            if not children and not tree:
                return 0
            if time.monotonic() - started < self.grace_seconds:
                for pid in tree.keys() - told:
                    for number in (signal.SIGTERM, signal.SIGCONT):
                        signal_process(pid, number, group=not ON_LINUX)
                    told.add(pid)
                self.wait(0.05)
                continue
            # By group first: that is atomic, so that a group whose members fork all the time has no way out.
            for group in set(tree.values()) - {os.getpgrp()}:
                signal_process(group, signal.SIGKILL, group=True)
            for pid in tree:
                signal_process(pid, signal.SIGKILL)
            self.wait(0.01)
        return len(self.tree())


def main(arguments: list[str]) -> int:
    runner_pid, status_fd, stdin_fd, grace, deadline, memory_bytes, cwd, *argv = arguments
    guard = Guard(int(runner_pid), int(status_fd), float(grace), float(deadline))
    if ON_LINUX:
        become_subreaper()
    guard.start(argv, cwd, int(stdin_fd), int(memory_bytes))
    why = guard.watch()
    left = guard.end_tree()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1024 if ON_LINUX else 1)
    returncode = guard.returncode if guard.returncode is not None else -signal.SIGKILL
    guard.tell(f"done {returncode:d} {peak} {left} {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
