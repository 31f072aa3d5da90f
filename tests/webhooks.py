"""A receiver of webhooks: a real HTTP server whose answers a test chooses."""

import asyncio
import base64
import contextlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.ports import free_port


@dataclass
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> tuple[str, str]:
        """The type and the device."""
        document = json.loads(self.body)
        return document["type"], document["data"]["device"]

    def is_signed_with(self, secret: str) -> bool:
        """Whether the signature is right by the text of Standard Webhooks."""
        signed = b".".join((self.headers["webhook-id"].encode(), self.headers["webhook-timestamp"].encode(), self.body))
        key = base64.b64decode(secret.split("_")[1])
        expected = base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()
        return self.headers["webhook-signature"].split(",") == ["v1", expected]


@dataclass
class Receiver:
    """What was received, and what is answered."""

    port: int = field(default_factory=free_port)
    status: int = 200
    location: str = ""
    hold: asyncio.Event | None = None
    """Requests are not answered before it is set."""
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alarms"

    @property
    def events(self) -> list[tuple[str, str]]:
        """Of the requests, in their order."""
        return [one.event for one in self.received]

    async def _answer(self, request: Request) -> Response:
        self.received.append(Received(dict(request.headers), await request.body()))
        if self.hold is not None:
            await self.hold.wait()
        headers = {"Location": self.location} if self.location else {}
        return Response(status_code=self.status, headers=headers)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen on the port, in this event loop."""
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        listener = socket.create_server(("127.0.0.1", self.port))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            if self.hold is not None:
                self.hold.set()
            server.should_exit = True
            await running


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
