"""voiceproject.serving with short times for clients that stall, for `--config python:tests.programs.quick_serving`."""

from voiceproject.server.serving import *  # noqa: F403


def post_worker_init(worker: object) -> None:  # type: ignore[no-redef]
    from voiceproject.server.bodies import Body
    from voiceproject.server.connection import Connection
    from voiceproject.server.edge import Sender

    Connection.HEAD_SECONDS = Body.IDLE_SECONDS = Sender.IDLE_SECONDS = 1.0
    Body.DRAIN_SECONDS = 0.2
    Body.GRACE_SECONDS = Sender.GRACE_SECONDS = 2.0
