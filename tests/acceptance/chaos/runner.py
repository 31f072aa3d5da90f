"""A cycle: publish, hurt, heal, drain, reconcile."""

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.acceptance.chaos.fault import Fault
from tests.acceptance.chaos.ledger import read_ledger
from tests.acceptance.chaos.oracle import Verdict, examine
from tests.acceptance.chaos.stack import Stack, until

_DRAIN_S = 120.0


@dataclass(frozen=True)
class Load:
    """How much a cycle publishes, and how fast (messages a second)."""

    count: int
    rate: float


def run_cycle(stack: Stack, cycle: int, faults: list[Fault], rng: random.Random, load: Load) -> Verdict:
    """Publish `load`, inject and heal the faults meanwhile, wait until all has drained, and examine the cycle.

    Raises `Stuck` when something does not come back.
    """
    stack.publisher.tell(f"publish {cycle} {load.count} {load.rate}")
    _hurt(stack, faults, rng, load.count / load.rate)
    _wait(stack, lambda: stack.publisher.answered(f"published {cycle}"), "everything is published")
    drain(stack, cycle)
    entries = [entry for entry in read_ledger(stack.ledger) if entry.cycle == cycle]
    return examine(stack.database_url, entries, f"C{cycle}-", stack.excused_until)


def drain(stack: Stack, cycle: int) -> None:
    """Wait until a message behind all others has its receipt."""
    stack.publisher.tell(f"drain {cycle}")
    _wait(stack, lambda: stack.publisher.answered(f"drained {cycle}"), "the queue has drained")


def examine_all(stack: Stack) -> Verdict:
    """Reconcile the whole run: what came back from the dead in a later cycle shows here."""
    return examine(stack.database_url, read_ledger(stack.ledger), "C", stack.excused_until)


def _hurt(stack: Stack, faults: list[Fault], rng: random.Random, lasts_s: float) -> None:
    _pass(stack, rng.uniform(0.1, 0.4) * lasts_s)
    with contextlib.ExitStack() as healing:
        for fault in faults:
            fault.inject(stack, rng)
            healing.callback(fault.heal)
            _pass(stack, rng.uniform(0.0, 0.2))
        _pass(stack, max(fault.hold_s for fault in faults) * rng.uniform(0.9, 1.3))


def _pass(stack: Stack, seconds: float) -> None:
    """Let time go by; a bridge that dies is started again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stack.supervise()
        time.sleep(0.01)


def _wait(stack: Stack, condition: Callable[[], bool], what: str) -> None:
    def met() -> bool:
        stack.supervise()
        return condition()

    until(met, what, _DRAIN_S)
