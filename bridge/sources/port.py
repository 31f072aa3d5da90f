"""What a source is: it connects, delivers with backpressure, settles what is committed, and closes.

The bridge hands every source an `Intake`. A source calls `offer` with what arrived together and the function that
settles it; the bridge calls that function once, in order, after the commit. Shape: Bento's input, which returns a
batch with its acknowledgement function.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from prometheus_client import CollectorRegistry

from bridge.delivery import Delivery
from bridge.settings.group import Group


class Intake(Protocol):
    """Where a source delivers to. While it is `full`, a source stops reading, so that its peer holds what comes."""

    on_room: Callable[[], None]
    """Set by the source; called when there is room again after `full`."""
    retrying: bool
    """The store is unavailable, and the same batch is tried again."""

    @property
    def full(self) -> bool:
        """Whether to stop reading; a single delivery may overshoot the capacity."""
        ...

    @property
    def stalled_s(self) -> float:
        """For how long something has been outstanding without a batch being settled, in seconds."""
        ...

    def offer(self, delivery: Delivery) -> None:
        """Accept a delivery. Its `settle` is called exactly once."""
        ...

    async def room(self) -> None:
        """Wait until it is not full."""
        ...


class Source(Protocol):
    """One connection to whatever holds the messages until they are settled."""

    @property
    def not_ready(self) -> str | None:
        """Why nothing can arrive at the moment; None while it can."""
        ...

    async def run(self) -> None:
        """Deliver until `stop_reading`, and reconnect by itself; cancelled at the end."""
        ...

    def stop_reading(self) -> None:
        """Deliver nothing more. What was delivered is still settled."""
        ...

    async def close(self) -> None:
        """Send the acknowledgements of what was settled, and end in such a way that the rest is kept for later."""
        ...

    def abort(self, reason: str) -> None:
        """End at once and acknowledge nothing more: another bridge has taken over."""
        ...


Open = Callable[[Intake], Source]
S = TypeVar("S", bound=Group)


class SourceKind(NamedTuple, Generic[S]):
    """One kind of source, as `SOURCES` lists it."""

    settings: type[S]
    """What it reads from the environment."""
    open: Callable[[S, CollectorRegistry], Open]
    """Called once per process, where the metrics are made; what it returns, once for each time this bridge leads."""
