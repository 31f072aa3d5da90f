"""What the keeper does: duties. A duty is one module that makes a `Duty`, and one line in `duties`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry

from bridge.contract import Kind
from bridge.status import StatusColumn
from bridge.store.session import Connection


class Figure(NamedTuple):
    """What a duty tells about its work, as a gauge with the label `kind`."""

    name: str
    field: str
    """Its name in the answer of /readyz."""
    description: str
    value: Callable[[Kind], float]
    """Asked when the metrics are read."""


class Companion(Protocol):
    """Work that the leading keeper does beside its duties, because it may wait for others for long."""

    def measure(self, registry: CollectorRegistry) -> None:
        """Add its metrics; called once, before `run`."""

    async def run(self) -> None:
        """Work until cancelled, on sessions of its own. Two processes may do it at once while the lead changes. It is
        started again when it raises."""


@dataclass(frozen=True, slots=True)
class Duty:
    """Work that must be repeated, by the keeper that leads at the time."""

    name: str
    """Its label in the metrics."""
    every_s: float
    """How often it is due."""
    run: Callable[[Connection], Awaitable[bool]]
    """Do a part of it that takes seconds at most, on the leader's session; whether there is more to do at once. It may
    end, or be killed, after any statement: the next run, perhaps by another process, continues from what is committed.
    Its errors are counted, and it is retried.
    """
    figures: tuple[Figure, ...] = ()
    problem: Callable[[], str | None] = lambda: None
    """Why an operator must look although its runs succeed, or None."""
    status: Callable[[], Mapping[StatusColumn, float | None]] = dict
    """What it adds to the row of this process in `process_status`."""
