"""The interface of a source: it connects, delivers with back-pressure, acknowledges after the commit, and closes.

The bridge passes an `Intake` to every source. A source calls `offer` with items that were received together and the
function that settles them; the bridge calls that function once, in order, after the commit. The model is Bento's
input, which returns a batch with its acknowledgement function.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from prometheus_client import CollectorRegistry

from bridge.delivery import Delivery
from bridge.settings.group import Group


class Intake(Protocol):
    """The receiver of deliveries. While it is `full`, a source stops reading, so that its peer queues the messages."""

    on_room: Callable[[], None]
    """Set by the source; called when there is capacity again after `full`."""

    @property
    def retrying(self) -> bool:
        """Whether the last attempt to write found the database unavailable; the same batch is retried."""
        ...

    @property
    def full(self) -> bool:
        """Whether to stop reading; a single delivery may exceed the capacity."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a whole batch waits to be written: what need not be offered yet would delay what follows it."""
        ...

    @property
    def stalled_s(self) -> float:
        """Seconds for which deliveries have been outstanding without any batch being settled."""
        ...

    def offer(self, delivery: Delivery) -> None:
        """Accept a delivery. Its `settle` will be called exactly once."""
        ...

    async def room(self) -> None:
        """Wait until it is not full and readings can be judged."""
        ...

    def now(self) -> datetime:
        """The time by which to judge readings. Raises `ClocksDiffer`: then nothing may be delivered or acknowledged."""
        ...


class Source(Protocol):
    """A connection to a peer that stores the messages until they are acknowledged."""

    @property
    def not_ready(self) -> str | None:
        """Why no messages can be received at the moment, or None."""
        ...

    async def run(self) -> None:
        """Deliver until `stop_reading`, and reconnect as needed; cancelled at the end."""
        ...

    def stop_reading(self) -> None:
        """Stop delivering. Earlier deliveries are still settled."""
        ...

    async def close(self) -> None:
        """Send the acknowledgements of settled messages, and close so that the peer keeps the others."""
        ...

    def abort(self, reason: str) -> None:
        """Close at once without further acknowledgements: another bridge has taken over."""
        ...


@runtime_checkable
class Divided(Source, Protocol):
    """A source whose messages are in partitions, each of which one bridge reads at a time."""

    async def assign(self, partitions: frozenset[int]) -> None:
        """Read these partitions and no others. It returns when the last acknowledgements of others have been sent."""
        ...


Open = Callable[[Intake], Source]
S = TypeVar("S", bound=Group)


class SourceKind(NamedTuple, Generic[S]):
    """One kind of source, as `SOURCES` lists it."""

    settings: type[S]
    """The settings that it reads from the environment."""
    open: Callable[[S, CollectorRegistry], Open]
    """Called once per process, registers the metrics; its result is called each time this bridge becomes active."""
    shares: bool = False
    """Whether the messages are divided among all bridges, so that none has to stand by."""
    partitions: Callable[[S], int] | None = None
    """For a `Divided` source: how many partitions there are, of which the bridges choose theirs."""
