"""A connection to a NATS server. The only module that knows nats-py, which the extra `nats` installs."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bridge.extras import extra
from bridge.streams.port import StreamUnavailable

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_TIMEOUT_S = 5
_API_TIMEOUT_S = 4.0
_PING_INTERVAL_S = 10
_PEERS_MISSING = (10005, 10023)  # too few nodes are up for the replicas, as at the start of a cluster


class NatsUnavailable(StreamUnavailable):
    """The connection was lost, or the cluster does not answer."""


class ApiError(StreamUnavailable):
    """JetStream refused a request."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("description", ""))
        self.code: int = error.get("code", 0)
        self.is_transient = self.code >= 500 or error.get("err_code") in _PEERS_MISSING


def require() -> None:
    """Exit with 2, and name the extra, when nats-py is not installed."""
    with extra("nats"):
        import nats  # noqa: F401


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Turn the errors of nats-py into `NatsUnavailable`."""
    from nats.errors import Error

    try:
        yield
    except (Error, OSError, TimeoutError) as error:
        raise NatsUnavailable(str(error) or type(error).__name__) from None


class Client:
    """One connection, to the first server that accepts it; it is not made again when it is lost."""

    def __init__(self, nats: "NatsClient", closed: asyncio.Event) -> None:
        self._nats = nats
        self.closed = closed
        """Set when the connection is lost."""
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, servers: Sequence[str], name: str, tls: ssl.SSLContext | None) -> "Client":
        """Connect to one of the servers. Raises `NatsUnavailable`."""
        from nats.aio.client import Client as NatsClient

        closed = asyncio.Event()
        problems: list[str] = []

        async def note(error: Exception) -> None:
            problems.append(str(error) or type(error).__name__)

        async def close() -> None:
            closed.set()

        nats = NatsClient()
        try:
            with _asking():
                await nats.connect(
                    list(servers),
                    name=name,
                    tls=tls,
                    allow_reconnect=False,
                    connect_timeout=_TIMEOUT_S,
                    ping_interval=_PING_INTERVAL_S,
                    error_cb=note,
                    closed_cb=close,
                )
        except NatsUnavailable as error:
            raise NatsUnavailable(problems[-1] if problems else str(error)) from None
        return cls(nats, closed)

    @property
    def server(self) -> str:
        """The host and port of the server, without the account."""
        url = self._nats.connected_url
        return url.netloc.rpartition("@")[2] if url is not None else ""

    async def ask(self, subject: str, body: object = None) -> dict[str, Any]:
        """The answer of JetStream's API. Raises `ApiError` and `NatsUnavailable`."""
        request = b"" if body is None else json.dumps(body).encode()
        with _asking():
            message = await self._nats.request(f"$JS.API.{subject}", request, timeout=_API_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(message.data)
        if error := answer.get("error"):
            raise ApiError(error)
        return answer

    async def subscribe(self, received: "Callable[[Msg], Awaitable[None]]", below: str = "") -> "Subscription":
        """Subscribe to a new inbox, or to what is `below` it, without a limit: requests limit what arrives."""
        with _asking():
            return await self._nats.subscribe(
                self._nats.new_inbox() + below, cb=received, pending_msgs_limit=-1, pending_bytes_limit=-1
            )

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish without waiting for anything. Raises `NatsUnavailable`."""
        with _asking():
            await self._nats.publish(subject, payload, reply=reply, headers=None if headers is None else dict(headers))

    async def close(self) -> None:
        """Send what was published, and close the connection."""
        if self._closing is None:
            with contextlib.suppress(NatsUnavailable), _asking():
                await self._nats.flush(_TIMEOUT_S)
        await self.abort()

    async def abort(self) -> None:
        """Close the connection, even if the caller is cancelled meanwhile: nats-py would leave the socket open."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._abort())
        await asyncio.shield(self._closing)

    async def _abort(self) -> None:
        with contextlib.suppress(NatsUnavailable), _asking():
            await self._nats.close()
        self.closed.set()
