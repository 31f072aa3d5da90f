"""Whether the servers of a run answer, and when the run gives up one that does not.

Once a server has answered, a run waits for it for any time. Before that its address may be wrong, and after the signal
to stop somebody waits for the run to end, so both have a limit.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_TO_START_S = 10.0
"""Maximum time until a server answers for the first time."""
_TO_STOP_S = 20.0
"""Maximum time without an acknowledgement after the signal to stop; longer than the wait for receipts."""
_LOOK_S = 0.1


class Unreachable(Exception):
    """A server does not answer; the text names it and the reason."""


@dataclass
class Contact:
    """The connection of one lane to a server, such as `broker 127.0.0.1:1883`."""

    server: str
    is_made: bool = False
    """Whether the server has answered at least once."""
    trouble: str = ""
    """Why the last attempt failed; empty after a successful one."""

    def made(self) -> None:
        self.is_made, self.trouble = True, ""

    def failed(self, error: Exception) -> None:
        self.trouble = f"{self.server}: {str(error) or type(error).__name__}"


def trouble_of(contacts: Sequence[Contact]) -> str:
    """The reason of the first contact that has none now; empty when all have."""
    return next((contact.trouble for contact in contacts if contact.trouble), "")


async def give_up(contacts: Sequence[Contact], acknowledged: Callable[[], int], stop: asyncio.Event) -> None:
    """Wait until cancelled. Raises `Unreachable` when a server has not answered for 10 s since the start, or not until
    `stop`, and when the number of acknowledgements has not changed for 20 s after `stop`.
    """
    begun = time.monotonic()
    while not stop.is_set():
        if time.monotonic() - begun > _TO_START_S and (reason := _never_reached(contacts)):
            raise Unreachable(f"cannot reach the {reason}")
        await asyncio.sleep(_LOOK_S)
    if reason := _never_reached(contacts):
        raise Unreachable(f"cannot reach the {reason}")
    count, since = acknowledged(), time.monotonic()
    while time.monotonic() - since < _TO_STOP_S:
        await asyncio.sleep(_LOOK_S)
        if count != (count := acknowledged()):
            since = time.monotonic()
    reason = trouble_of(contacts) or f"no acknowledgement for {_TO_STOP_S:.0f} s"
    raise Unreachable(f"stopped before all readings were acknowledged: {reason}")


def _never_reached(contacts: Sequence[Contact]) -> str:
    reached = {contact.server for contact in contacts if contact.is_made}
    return trouble_of([contact for contact in contacts if contact.server not in reached])
