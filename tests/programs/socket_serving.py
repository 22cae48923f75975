"""tests.programs.quick_serving with a WebSocket that says back what it hears."""

import re

from tests.programs import quick_serving
from tests.programs.quick_serving import *  # noqa: F403


def post_worker_init(worker: object) -> None:  # type: ignore[no-redef]
    from voiceproject.registry import WebSocketRoute, registry
    from voiceproject.server.connection import SocketConnection
    from voiceproject.server.websockets import Socket

    quick_serving.post_worker_init(worker)
    Socket.IDLE_SECONDS, Socket.SEND_SECONDS = 2.0, 1.0
    SocketConnection.GOODBYE_SECONDS = 1.0

    async def echo(socket: Socket, name: str) -> None:
        while (message := await socket.receive()) != "bye":
            if message == "flood":
                while True:
                    await socket.send(bytes(100_000))
            if message == "fail":
                raise RuntimeError("broken")
            await socket.send(message if isinstance(message, bytes) else f"{name}: {message}")

    registry.websockets.append(
        WebSocketRoute(re.compile(r"/echo/(?P<name>[a-z]+)"), ("synthesize",), echo, "echo/<str:name>")
    )
