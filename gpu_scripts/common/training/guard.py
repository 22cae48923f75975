"""The guard of one program of an engine: nothing of it outlives whoever started it.

    python -I -S guard.py LIFELINE_FD ARGV...

The program is started in a session of its own. When the lifeline (a pipe whose other end the starter holds) is closed,
because the starter wants its end or because it died, or when SIGTERM comes, every process of that session is ended:
SIGTERM, five seconds, SIGKILL. The same is done with what is left when the program ends by itself. What those processes
had in /dev/shm (semaphores of Python's multiprocessing, tensors of data loaders) is removed once nobody maps it any
more; other trainings' are left alone. Exits as the program did, or with 128 and the signal's number.

The standard library alone.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 5.0
LOOK_SECONDS = 1.0
SHARED = re.compile(r" (/dev/shm/(?:sem\.|torch_|psm_|pym-)[^ ]+)")


def members(session: int) -> list[int]:
    """The processes of the session, from /proc; where there is none (macOS), nobody is found."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
                found.append(int(name))
    return found


def shared_by(pids: list[int]) -> set[str]:
    """The files in /dev/shm that the processes have mapped."""
    found: set[str] = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                found.update(match[1] for line in file if (match := SHARED.search(line.rstrip("\n"))))
        except OSError:
            continue
    return found


def end(session: int) -> None:
    """Every process of the session, until none is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(session, number)
        except (ProcessLookupError, PermissionError):
            pass
        deadline = time.monotonic() + GRACE_SECONDS
        while (left := members(session)) and time.monotonic() < deadline:
            if number == signal.SIGKILL:  # those that made a process group of their own
                for pid in left:
                    try:
                        os.kill(pid, number)
                    except ProcessLookupError:
                        pass
            time.sleep(0.05)
        if not left:
            return


def main(lifeline: int, argv: list[str]) -> int:
    os.set_inheritable(lifeline, False)
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: asked.append(number))
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    shared: set[str] = set()
    looked = 0.0
    while process.poll() is None and not asked:
        if time.monotonic() - looked > LOOK_SECONDS:
            shared |= shared_by(members(process.pid))
            looked = time.monotonic()
        if select.select([lifeline], [], [], 0.1)[0]:
            break
    shared |= shared_by(members(process.pid))
    end(process.pid)
    code = process.wait()
    if shared:
        everyone = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        for path in shared - shared_by(everyone):
            if os.path.exists(path):
                os.unlink(path)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
