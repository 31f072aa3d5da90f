"""Faults one after the other on one platform, for the short forms of the run."""

import contextlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from simulator.findings import Findings
from tests.acceptance.chaos.fault import FAULTS
from tests.acceptance.chaos.report import described
from tests.acceptance.chaos.runner import Load, examine_all, run_cycle
from tests.acceptance.chaos.stack import Stack

_SEED = 1


class OneByOne:
    """A cycle for each fault."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._cycles = itertools.count()
        self.items = 0
        """Sent in all cycles."""

    def strike(self, name: str, load: Load) -> Findings:
        """A cycle with this fault. Raises `CannotHappenHere`."""
        rng = random.Random(f"{_SEED}:{name}")
        findings = run_cycle(self._stack, next(self._cycles), [FAULTS[name]], rng, load)
        assert findings.clean, described(findings)
        self.items += findings.seen["items sent"]
        return findings


@contextlib.contextmanager
def one_by_one(platform: type[Stack], directory: Path) -> Iterator[OneByOne]:
    """A started platform; all cycles are examined together at its end: an old snapshot redelivers earlier messages."""
    stack = platform(directory, _SEED)
    try:
        faults = OneByOne(stack)
        yield faults
        findings = examine_all(stack)
        assert findings.clean, described(findings)
        assert findings.seen["items sent"] >= faults.items
    finally:
        stack.close()
