"""The interface of a stream to which messages are published, as of a source from which they are read.

Nothing is decoded on the way: a message carries what its sender sent, and the bridge that reads the stream judges it.
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from bridge.settings.group import Group

Done = Callable[[str | None], None]
"""Is called once: with None when the message is durable, or with the reason why that is not certain."""


class StreamUnavailable(Exception):
    """The cluster does not answer, or refused a request."""


class Message(NamedTuple):
    """What a message carries. The properties are those of MQTT 5."""

    topic: str
    """The MQTT topic of its device."""
    payload: bytes
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None


class Stream(Protocol):
    """One connection to a cluster. `publishing.Publisher` opens it again when it is lost."""

    async def open(self) -> None:
        """Connect, and make the stream unless it exists.

        Raises `StreamUnavailable`, and `Misconfigured` when the stream cannot keep the promise.
        """
        ...

    def publish(self, message: Message, done: Done) -> None:
        """Publish a message behind the earlier ones, and call `done` when the stream has answered.

        Raises `StreamUnavailable`; then `done` is not called.
        """
        ...

    async def serve(self) -> str:
        """Send, and call the `done` of what is answered, until the connection is lost. Returns the reason."""
        ...

    async def close(self) -> None:
        """Close the connection. What is not answered is reported as not certain."""
        ...


S = TypeVar("S", bound=Group)


class StreamKind(NamedTuple, Generic[S]):
    """One kind of stream, as `TARGETS` lists it."""

    settings: type[S]
    """The settings that it reads from the environment."""
    make: Callable[[S], Stream]
    """Makes the connection, which is not open yet."""


AnyStreamKind = StreamKind[Any]
