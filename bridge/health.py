"""The bridge's HTTP port: /healthz (the process runs), /readyz (readings are received and committed), /metrics."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.errors import Misconfigured

NotReady = Callable[[], str | None]
"""Returns why the bridge is not ready, or None."""


class HealthServer(uvicorn.Server):
    """Serves until `should_exit`; does not handle signals."""

    def __init__(self, registry: CollectorRegistry, not_ready: NotReady) -> None:
        super().__init__(uvicorn.Config(_application(registry, not_ready), log_config=None, lifespan="off"))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises `Misconfigured` when that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise Misconfigured(
            f"FLEET_BRIDGE_HTTP_PORT: cannot listen on {host}, port {port}: {error.strerror}"
        ) from error


def _application(registry: CollectorRegistry, not_ready: NotReady) -> Starlette:
    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reason = not_ready()
        if reason is None:
            return JSONResponse({"status": "ready"})
        problem = {"title": "Not ready", "status": 503, "detail": reason}
        return JSONResponse(problem, 503, media_type="application/problem+json")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)],
    )
