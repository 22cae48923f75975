"""A small server for a GPU box without a shared disk: GPT-SoVITS over HTTP, one synthesis at a time.

Run by the engine's interpreter; it needs what that environment has (torch, fastapi, uvicorn, python-multipart, numpy,
soundfile), and no more:

    VOICEPROJECT_TOKEN=... python gptsovits_server.py --project-root /opt/GPT-SoVITS --host 0.0.0.0 --port 9881

POST /synthesize, multipart/form-data, `Authorization: Bearer <token>`, optional `X-Request-ID`. Parts: `text`;
`language` and `reference_language` (the engine's names, `auto`); `reference_audio` (3 to 10 s of what libsndfile
reads); `reference_text` (may be empty); `speed` (0.25 to 4, 1); `temperature` (up to 2, 1); `seed` (0 to 2**32 - 1,
drawn if it is left out); `model_id` (`default`); `gpt_weights` and `sovits_weights`, paths below the project root that
win over `model_id`. 200 is `audio/wav`, mono, 16 bits, with `X-Seed`. Everything else is JSON, {"error", "message"}:
400 bad_request, 401 unauthorized, 404 unknown_model, 413 too_large, 422 unspeakable, 500 synthesis_failed (for silence
too), 503 busy (with Retry-After) or stopping, 507 out_of_memory; 408 too_slow and 503 busy before there is a request.

GET /health: {"status": "ready"|"busy"|"stopping", "engine", "version", "queue_length", "models", "loaded_model",
"loaded_weights": {"gpt", "sovits"}, "started_at", "uptime_seconds"}. It answers while a synthesis runs; models and
weights are told only to whoever has the token.

stdout: `LISTENING <url>` once it accepts connections. stderr: a line a request, without its text. SIGTERM: new and
waiting requests are refused, the running one is finished within --grace-seconds. Exit codes: 0 stopped; 1 the port is
taken, or unexpected; 2 bad arguments; 7 no memory for the models; 8 no CUDA; 11 the engine cannot be loaded, or has
lost its CUDA context: only a new process helps, so let systemd or the like start one.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python itself leaves it out with -I or -P

from common import options, script_io
from common.gptsovits.connections import Connection, Limits, look_at_all
from common.gptsovits.runtime import Runtime
from common.gptsovits.service import Service, application
from common.gptsovits.worker import References, Worker

log = logging.getLogger("gptsovits_server")


class Server(uvicorn.Server):
    """uvicorn, but SIGTERM first tells `service`; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop = asyncio.get_running_loop()

    async def on_tick(self, counter: int) -> bool:
        if counter % 5 == 0:  # twice a second
            look_at_all(self.server_state.connections)
        return await super().on_tick(counter)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        for bound in sockets:
            # Not sys.stdout, which is nowhere for as long as the engine loads.
            print(f"LISTENING http://{self.config.host}:{bound.getsockname()[1]}", file=sys.__stdout__, flush=True)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._service.stopping.is_set():
            self.should_exit = self.force_exit = True
        self._loop.call_soon_threadsafe(self._service.stopping.set)


async def serve(arguments: argparse.Namespace, token: str) -> int:
    """Serves until it is stopped; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="gptsovits-server-") as folder:  # for this user alone
        root = Path(os.path.abspath(arguments.project_root))
        worker = Worker(
            lambda: Runtime(root, arguments.device, arguments.is_half, arguments.default_version),
            References(Path(folder), 60 * arguments.keep_minutes),
        )
        service = Service(worker, root, token, arguments.max_waiting, arguments.max_upload_bytes)
        limits = Limits(arguments.head_seconds, arguments.body_seconds, arguments.max_connections)
        config = uvicorn.Config(
            application(service),
            host=arguments.host,
            port=arguments.port,
            http=type("LimitedConnection", (Connection,), {"limits": limits}),
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
        )
        server = Server(config, service)
        serving = asyncio.ensure_future(server.serve(sockets=[config.bind_socket()]))
        loading = asyncio.ensure_future(service.start())
        stop = asyncio.ensure_future(service.stopping.wait())
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            log.info("stopping")
            try:
                await asyncio.wait_for(service.finished(), arguments.grace_seconds)
            except asyncio.TimeoutError:  # noqa: UP041 (it is another one before Python 3.11)
                log.warning("the running synthesis is given up after %g s", arguments.grace_seconds)
                service.late.set()
            await asyncio.sleep(0.1)  # the last answer is on its way
            server.should_exit = True
            await serving
        loading.cancel()
        stop.cancel()
        if worker.runtime is not None:
            worker.runtime.close()
    return service.exit_code


def main(argv: list[str] | None = None) -> None:
    parser = script_io.OneLineParser(description="GPT-SoVITS over HTTP, one synthesis at a time.")
    parser.add_argument("--project-root", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9881)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--is-half", type=options.boolean, default=True)
    parser.add_argument("--default-version", default="", help="whose pretrained weights `default` means, as v2ProPlus")
    parser.add_argument("--token-file", type=Path, help="instead of VOICEPROJECT_TOKEN in the environment")
    parser.add_argument("--max-waiting", type=int, default=8, help="requests beside the running one")
    parser.add_argument("--max-upload-bytes", type=int, default=12 * 2**20)
    parser.add_argument("--max-connections", type=int, default=Limits.connections)
    parser.add_argument("--head-seconds", type=float, default=Limits.head_seconds, help="for a request's head to come")
    parser.add_argument("--body-seconds", type=float, default=Limits.body_seconds, help="for the rest, and the answer")
    parser.add_argument("--grace-seconds", type=float, default=30, help="for the running synthesis, at SIGTERM")
    parser.add_argument("--keep-minutes", type=float, default=60, help="how long an unused reference is kept")
    arguments = parser.parse_args(argv)
    # Out of the environment, so that nothing that the engine starts inherits it.
    token = os.environ.pop("VOICEPROJECT_TOKEN", "").strip()
    if arguments.token_file:
        try:
            token = arguments.token_file.read_text("utf-8").strip()
        except OSError as error:
            parser.error(f"--token-file cannot be read: {error.strerror}")
        if not token:
            parser.error("--token-file is empty")
    if not token and not _is_loopback(arguments.host):
        parser.error("without a token (VOICEPROJECT_TOKEN or --token-file) only a loopback address is served")
    if token and not 16 <= len(token) <= 512:
        parser.error("the token must have 16 to 512 characters")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("uvicorn", "multipart", "python_multipart", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    code = asyncio.run(serve(arguments, token))
    logging.shutdown()
    sys.stdout.flush()
    # At once, and not after the engine's thread, which may still be at a synthesis that was given up.
    os._exit(code)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    script_io.run(main)
