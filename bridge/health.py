"""The HTTP port of a process for /healthz (it runs), /readyz (it does its work) and /metrics."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.errors import Misconfigured

NotReady = Callable[[], str | None]
"""Returns why the process is not ready, or None."""

Details = Callable[[], Mapping[str, object]]
"""Returns further members of the answer of /readyz, which are JSON."""


@contextlib.asynccontextmanager
async def serving(
    host: str, port: int, setting: str, registry: CollectorRegistry, not_ready: NotReady, details: Details = dict
) -> AsyncIterator[None]:
    """Serve them on that address. Raises `Misconfigured` when that is not possible.

    It names the setting of the host or of the port; `setting` is how both begin, such as `FLEET_BRIDGE_HTTP`.
    The registry gets a gauge of what /readyz answers, because Prometheus does not read that.
    """
    listening = listen(host, port, setting)
    ready = Gauge("fleet_ready", "1 if /readyz answers 200.", registry=registry)
    ready.set_function(lambda: float(not_ready() is None))
    server = _Server(uvicorn.Config(_application(registry, not_ready, details), log_config=None, lifespan="off"))
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


class _Server(uvicorn.Server):
    """Serves until `should_exit`; does not handle signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket. Raises `Misconfigured`; `setting` is how the names of both settings begin."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        part = "PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "HOST"
        raise Misconfigured(f"{setting}_{part}: cannot listen on {host}, port {port}: {error.strerror}") from error


def _application(registry: CollectorRegistry, not_ready: NotReady, details: Details) -> Starlette:
    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reason = not_ready()
        if reason is None:
            return JSONResponse({"status": "ready", **details()})
        problem = {"title": "Not ready", "status": 503, "detail": reason, **details()}
        return JSONResponse(problem, 503, media_type="application/problem+json")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)],
    )
