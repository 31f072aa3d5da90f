"""A fault: its name, how it begins and how it is healed. The courses are in the modules `..._faults`; each is a
generator that does the damage, yields while it lasts, repairs it and looks for its alarm.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.chaos.link import Link
from tests.acceptance.chaos.stack import Stack

Course = Callable[[Any, random.Random], Iterator[None]]
"""Its first argument is the platform on which the fault is registered."""

FAULTS: dict[str, "Fault"] = {}
"""Every fault by its name, in the order of docs/reliability.md."""


@dataclass
class Fault:
    """`inject` begins it, `heal` ends it and raises `NotInTime` or `Stuck` when what had to follow has not."""

    name: str
    course: Course
    hold_s: float
    alone: bool
    """Needs everything else to work, so it is not combined with others."""
    on: type[Stack] = Stack
    """The platform that has what it strikes."""
    traffic_s: float = 0.0
    """Devices have to publish for so long, because it begins slowly."""
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def place(self) -> str:
        """Where it strikes: faults of one place are not combined."""
        return self.name.partition("-")[0]

    def inject(self, stack: Stack, rng: random.Random) -> None:
        self._running.enter_context(contextlib.contextmanager(self.course)(stack, rng))

    def heal(self) -> None:
        self._running.close()


def fault(
    name: str, hold_s: float = 0.8, *, alone: bool = False, on: type[Stack] = Stack, traffic_s: float = 0.0
) -> Callable[[Course], Course]:
    """Register the course of a fault that lasts about `hold_s` seconds."""

    def register(course: Course) -> Course:
        FAULTS[name] = Fault(name, course, hold_s, alone, on, traffic_s)
        return course

    return register


def link_faults(
    name: str, links: Callable[[Any], Sequence[Link]], hold_s: float, *, on: type[Stack] = Stack, most_s: float = 0.5
) -> None:
    """Register what can happen to the links of a platform.

    `NAME-cut` resets their connections at least every `most_s`, `NAME-stalls` holds all bytes back, and `NAME-swallows`
    accepts all bytes and passes none on.
    """

    def cut(stack: Stack, rng: random.Random) -> Iterator[None]:
        def cut_each() -> None:
            for link in links(stack):
                link.cut()

        with repeatedly(cut_each, rng, most_s / 10, most_s):
            yield

    def hold(strike: Callable[[Link], None]) -> Course:
        def course(stack: Stack, rng: random.Random) -> Iterator[None]:
            struck = links(stack)
            for link in struck:
                strike(link)
            yield
            for link in struck:
                link.heal()

        return course

    fault(f"{name}-cut", hold_s, on=on)(cut)
    fault(f"{name}-stalls", hold_s, on=on)(hold(Link.stall))
    fault(f"{name}-swallows", hold_s, on=on)(hold(Link.swallow))


@contextlib.contextmanager
def repeatedly(action: Callable[[], object], rng: random.Random, shortest_s: float, longest_s: float) -> Iterator[None]:
    """Do it again and again, with random pauses, in a thread."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(rng.uniform(shortest_s, longest_s)):
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
