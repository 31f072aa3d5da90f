"""A fault: its name, how it begins and how it is healed. The courses are in `bridge_faults`, `postgres_faults` and
`mqtt_faults`; each is a generator that does the damage, yields while it lasts, mends it and looks for its alarm.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.acceptance.chaos.stack import Stack

Course = Callable[[Stack, random.Random], Iterator[None]]

FAULTS: dict[str, "Fault"] = {}
"""Every fault by its name, in the order of docs/reliability.md."""


class CannotHappenHere(Exception):
    """This machine does not let us do it; the text says why."""


@dataclass
class Fault:
    """`inject` begins it, `heal` ends it and raises `NotInTime` or `Stuck` when what had to follow has not."""

    name: str
    course: Course
    hold_s: float
    alone: bool
    """Needs everything else to work, so it is not combined with others."""
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def place(self) -> str:
        """Where it strikes: faults of one place are not combined."""
        return self.name.partition("-")[0]

    def inject(self, stack: Stack, rng: random.Random) -> None:
        self._running.enter_context(contextlib.contextmanager(self.course)(stack, rng))

    def heal(self) -> None:
        self._running.close()


def fault(name: str, hold_s: float = 0.8, *, alone: bool = False) -> Callable[[Course], Course]:
    """Register the course of a fault that lasts about `hold_s` seconds."""

    def register(course: Course) -> Course:
        FAULTS[name] = Fault(name, course, hold_s, alone)
        return course

    return register


@contextlib.contextmanager
def repeatedly(action: Callable[[], None], rng: random.Random, shortest_s: float, longest_s: float) -> Iterator[None]:
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
