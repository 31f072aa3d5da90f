"""Answers questions from replicas, and says as of when an answer is, and where in the log a write is."""

from collections.abc import Awaitable
from http import HTTPStatus

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import ApiKey
from api.database import Pools
from api.replicas.reading import READING, Reading, ReplicaLost
from api.replicas.replica import Replicas
from api.routing import FOUND, Found
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.reading import format_timestamp

log = structlog.get_logger(__name__)

_SAFE = ("GET", "HEAD", "OPTIONS")


class Reads:
    """Gives each question its `Reading`; if its replica fails before the answer begins, the answer is given again.

    What a key limited to sites may see is in the register, where a change must hold at once: the primary answers it.
    """

    def __init__(self, app: ASGIApp, pools: Pools, replicas: Replicas) -> None:
        self._app = app
        self._pools = pools
        self._replicas = replicas

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        key: ApiKey | None = scope.get("state", {}).get("key")
        if key is None:
            return self._app(scope, receive, send)
        if scope["method"] in _SAFE:
            found: Found = scope[FOUND]
            is_of_figures = found.endpoint is not None and found.endpoint.is_of_figures
            reading = Reading(
                self._pools.of(is_of_figures),
                self._replicas,
                is_of_figures=is_of_figures,
                may_use_replicas=not key.sight.sites,
            )
            return self._answer(reading, scope, receive, send)
        return self._write(scope, receive, send)

    async def _answer(self, reading: Reading, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def stated(message: Message) -> None:
            nonlocal begun
            if reading.is_lost and not begun:
                return
            if message["type"] == "http.response.start":
                begun = True
                if reading.as_of is not None:
                    message["headers"] = [*message["headers"], (b"x-as-of", format_timestamp(reading.as_of).encode())]
            await send(message)

        scope["state"][READING] = reading
        try:
            await self._app({**scope}, receive, stated)
        except ReplicaLost:
            if begun:
                raise
        if reading.is_lost and not begun:
            reading.is_lost = False
            await self._app(scope, receive, stated)

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def placed(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_committed(message["status"]):
                message["headers"] = [*message["headers"], *await self._position()]
            await send(message)

        await self._app(scope, receive, placed)

    async def _position(self) -> list[tuple[bytes, bytes]]:
        """The header with the end of the log, which is behind the write; none if the primary cannot be asked now."""
        try:
            mark = await self._replicas.primary.mark()
        except (StoreUnavailable, Misconfigured) as error:
            log.warning("answer to a write without its position", reason=str(error))
            return []
        return [(b"x-position", str(mark.position).encode())]


def _is_committed(status: int) -> bool:
    """Whether the answer says that the write is in the database; 202 says that it will be."""
    return status < HTTPStatus.BAD_REQUEST and status != HTTPStatus.ACCEPTED
