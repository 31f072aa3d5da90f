"""What the keeper does: duties. A duty is one module that makes a `Duty`, and one line in `duties`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bridge.store.session import Connection


@dataclass(frozen=True, slots=True)
class Duty:
    """Work that must be repeated, by the keeper that leads at the time."""

    name: str
    """Its label in the metrics."""
    every_s: float
    """How often it is due."""
    run: Callable[[Connection], Awaitable[None]]
    """Do all of it that there is to do, on the leader's session. It may end, or be killed, after any statement: the
    next run, perhaps by another process, continues from what is committed. Its errors are counted, and it is retried.
    """
