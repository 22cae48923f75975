"""Clients for bench.connections, by the thousand: one asyncio process, told what to do by lines of JSON.

    python -m bench.serving.load PORT < commands > answers

Plain sockets: an HTTP client would send whole heads and read what it is sent. Each line of the standard input is one
command, answered by one line once it is done:

    {"do": "open", "group": "a", "kind": "stream", "targets": [{"path": "/x", "key": "k"}, ...], "parallel": 50}
    {"do": "report", "group": "a"}          how its clients stand now
    {"do": "close", "group": "a"}           hangs up
    {"do": "churn", "targets": [...], "count": 10000, "parallel": 50, "seconds": 60}

The end of the input ends everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import socket
import sys
import time
from collections import Counter
from typing import Any

# How fast the slow ones are.
BODY_SECONDS_A_BYTE = 5.0
DOWNLOAD_BYTES, DOWNLOAD_SECONDS = 2048, 0.5
WAIT_SECONDS = 60
# One that was not answered by then counts as refused; it is let go.
ANSWER_SECONDS = 30.0
GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)


class Client:
    """One connection at a time.

    state: opening; held (its stream has begun, its wait goes on, it sends or takes slowly); refused; answered (at once,
    where it was to be held); ended (by the server); told (of its job's end, before the end of its stream or wait);
    unanswered; lost. ended_after: seconds after its start.
    """

    def __init__(self, port: int, kind: str, target: dict[str, Any]) -> None:
        self.port, self.kind, self.target = port, kind, target
        self.state = "opening"
        self.status = 0
        self.ended_after = 0.0
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._started = time.monotonic()
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        try:
            await getattr(self, self.kind)()
        except TimeoutError:
            self.state = "unanswered"
        except GONE:
            self.state = "ended" if self.state == "held" else "lost"
        finally:
            self.ended_after = time.monotonic() - self._started
            self.hang_up()

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    async def connect(self, receive_buffer: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        reader, self._writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 65_536)
        return reader, self._writer

    def head(self, method: str, *headers: str) -> bytes:
        lines = [f"{method} {self.target['path']} HTTP/1.1", "Host: localhost", *headers]
        if key := self.target.get("key"):
            lines.append(f"X-API-Key: {key}")
        return "\r\n".join([*lines, "\r\n"]).encode()

    async def answer(self, reader: asyncio.StreamReader, seconds: float = ANSWER_SECONDS) -> dict[str, str]:
        """The answer's headers."""
        async with asyncio.timeout(seconds):
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(status.split()[1])
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    # --- kinds ------------------------------------------------------------------------------------------------

    async def stream(self) -> None:
        """Server-Sent Events, read as they come."""
        reader, writer = await self.connect()
        writer.write(self.head("GET", "Accept: text/event-stream"))
        await self.answer(reader)
        if self.status != 200:
            self.state = "refused"
            return
        seen = b""
        while block := await reader.read(65_536):
            seen = seen[-200_000:] + block
            if b'"canceled"' in seen:
                self.state = "told"
                return
            if b"\ndata:" in seen:
                self.state = "held"
        self.state = "ended"

    async def wait(self) -> None:
        """`Prefer: wait`, asked again for as long as the job lives."""
        reader, writer = await self.connect()
        while True:
            writer.write(self.head("GET", f"Prefer: wait={WAIT_SECONDS}"))
            self.state = "held"
            headers = await self.answer(reader, WAIT_SECONDS + ANSWER_SECONDS)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if self.status != 200:
                self.state = "refused"
                return
            if json.loads(body)["status"] == "canceled":
                self.state = "told"
                return
            if "preference-applied" not in headers:
                self.state = "answered"
                return
            if headers.get("connection", "").lower() == "close":
                reader, writer = await self.connect()

    async def half_head(self) -> None:
        """A head that never ends."""
        reader, writer = await self.connect()
        writer.write(self.head("GET", "X-Never: end")[:-4])
        self.state = "held"
        await self.see_the_end(reader)

    async def slow_body(self) -> None:
        """A body of one byte each few seconds, without a key."""
        reader, writer = await self.connect()
        form = "Content-Type: application/x-www-form-urlencoded"
        writer.write(self.head("POST", form, "Content-Length: 500"))
        self.state = "held"
        end = asyncio.create_task(self.see_the_end(reader))
        try:
            while not end.done():
                writer.write(b"a")
                await asyncio.wait([end], timeout=BODY_SECONDS_A_BYTE)
            await end
        finally:
            end.cancel()

    async def see_the_end(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(*GONE):
            await self.answer(reader, 3600)
        with contextlib.suppress(*GONE):
            while self.status == 0 and await reader.read(65_536):
                pass
        self.state = "ended"  # Answered, or let go: for a slow client that is the end.

    async def download(self) -> None:
        """Takes 4 KB a second."""
        reader, writer = await self.connect(receive_buffer=DOWNLOAD_BYTES)
        writer.write(self.head("GET"))
        await self.answer(reader)
        if self.status != 200:
            self.state = "refused"
            return
        self.state = "held"
        while await reader.read(DOWNLOAD_BYTES):
            await asyncio.sleep(DOWNLOAD_SECONDS)
        self.state = "ended"

    async def synthesis(self) -> None:
        """Syntheses, one after the other. What is refused is tried again a little later, as clients do."""
        body = json.dumps(self.target["json"]).encode()
        reader, writer = await self.connect()
        while True:
            began = time.monotonic()
            self.state = "held"
            try:
                kind = "Content-Type: application/json"
                writer.write(self.head("POST", kind, f"Content-Length: {len(body)}") + body)
                headers = await self.answer(reader)
                content = await reader.readexactly(int(headers["content-length"]))
                self.statuses[self.status if content[:4] == b"RIFF" or self.status != 200 else 0] += 1
                closed = headers.get("connection", "").lower() == "close"
            except (*GONE, TimeoutError, KeyError):
                self.statuses[0] += 1
                closed = True
            else:
                if self.status == 200:
                    self.times.append(time.monotonic() - began)
            if closed or self.statuses[0]:
                self.hang_up()
                await asyncio.sleep(0.1)
                reader, writer = await self.connect()
            if self.status != 200:
                await asyncio.sleep(0.1)


class Group:
    """Clients of one kind."""

    def __init__(self, port: int, kind: str, targets: list[dict[str, Any]]) -> None:
        self.clients = [Client(port, kind, target) for target in targets]
        self.tasks: list[asyncio.Task[None]] = []
        self.started = time.monotonic()

    async def open(self, parallel: int) -> None:
        """Starts all; returns when each has got somewhere, or has had time for it."""
        self.started = time.monotonic()
        for start in range(0, len(self.clients), parallel):
            some = self.clients[start : start + parallel]
            self.tasks += [asyncio.create_task(client.run()) for client in some]
            deadline = time.monotonic() + 2.0
            while any(client.state == "opening" for client in some) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def report(self) -> dict[str, Any]:
        statuses: Counter[int] = sum((client.statuses for client in self.clients), Counter())
        statuses.update(client.status for client in self.clients if client.state == "refused")
        return {
            "states": Counter(client.state for client in self.clients),
            "statuses": {str(status): count for status, count in statuses.items()},
            "times": [seconds for client in self.clients for seconds in client.times],
            "ended_after": [c.ended_after for c in self.clients if c.state == "ended"],
            "seconds": time.monotonic() - self.started,
        }


async def churn(port: int, targets: list[dict[str, Any]], count: int, parallel: int, seconds: float) -> dict[str, Any]:
    """Opens event streams and drops each at its first event."""
    found: Counter[str] = Counter()
    order = iter(range(count))
    deadline = time.monotonic() + seconds

    async def drop(targets: itertools.cycle[dict[str, Any]]) -> None:
        for _ in order:
            if time.monotonic() > deadline:
                return
            client = Client(port, "stream", next(targets))
            task = asyncio.create_task(client.run())
            while not task.done() and client.state != "held":
                await asyncio.sleep(0.002)
            found[client.state] += 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(drop(itertools.cycle(targets[n % len(targets) :] + targets)) for n in range(parallel)))
    return {"states": found}


async def main() -> None:
    port = int(sys.argv[1])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    commands = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    groups: dict[str, Group] = {}
    while line := await commands.readline():
        command = json.loads(line)
        answer: dict[str, Any] = {}
        match command["do"]:
            case "open":
                group = groups[command["group"]] = Group(port, command["kind"], command["targets"])
                await group.open(command.get("parallel", 50))
                answer = group.report()
            case "report":
                answer = groups[command["group"]].report()
            case "close":
                answer = groups[command["group"]].report()
                await groups.pop(command["group"]).close()
            case "churn":
                answer = await churn(port, *(command[n] for n in ("targets", "count", "parallel", "seconds")))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
