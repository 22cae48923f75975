"""The guard of one program of an engine: nothing of it outlives whoever started it.

    python -I -S guard.py LIFELINE_FD ARGV...

The program is started in a session of its own. When the lifeline (a pipe whose other end the starter holds) is closed,
because the starter wants its end or because it died, or when SIGTERM comes, every process of that session is ended:
SIGTERM, five seconds, SIGKILL. The same is done with what is left when the program ends by itself. What those processes
had in /dev/shm (semaphores of Python's multiprocessing, tensors of data loaders) is removed first, since this process
may be killed within those seconds too; what others map is left alone. Exits as the program did, or with 128 and the
signal's number.

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
SHARED_FOLDER = "/dev/shm"
# The inode in a line of /proc/*/maps. Whoever has made a semaphore has it under the name that it was made with, not the
# one that it was given then.
SHARED = re.compile(rf" (\d+) +{SHARED_FOLDER}/(?:sem\.|torch_|psm_|pym-)")


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
    inodes: set[int] = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                inodes.update(int(match[1]) for line in file if (match := SHARED.search(line)))
        except OSError:
            continue
    if not inodes:
        return set()
    with os.scandir(SHARED_FOLDER) as entries:
        return {entry.path for entry in entries if entry.inode() in inodes}


def remove(shared: set[str], ours: list[int]) -> None:
    """Removes files in /dev/shm that nobody has mapped but `ours`, the processes that are ended."""
    if shared:
        others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in ours]
        for path in shared - shared_by(others):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


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
    ours = members(process.pid)
    shared |= shared_by(ours)
    remove(shared, ours)
    end(process.pid)
    code = process.wait()
    remove(shared, [])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
