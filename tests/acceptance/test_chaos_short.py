"""Every row of the fault table in docs/reliability.md, once: the short form of `make chaos`."""

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.acceptance.chaos.fault import CannotHappenHere
from tests.acceptance.chaos.nemesis import FAULTS, possible
from tests.acceptance.chaos.report import described
from tests.acceptance.chaos.runner import Load, examine_all, run_cycle
from tests.acceptance.chaos.stack import Stack

_SEED = 1
_LOAD = Load(count=360, rate=400.0)
_cycles = itertools.count()
_items: list[int] = []


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("chaos"), _SEED)
    yield stack
    try:  # all cycles of this module together, because an old snapshot redelivers messages of earlier cycles
        findings = examine_all(stack)
        assert findings.clean, described(findings)
        assert findings.seen["items sent"] >= sum(_items)
    finally:
        stack.close()


@pytest.mark.parametrize("name", possible(stream=False))
def test_nothing_is_lost_or_counted_twice_by(name: str, stack: Stack) -> None:
    cycle = next(_cycles)
    try:
        findings = run_cycle(stack, cycle, [FAULTS[name]], random.Random(f"{_SEED}:{name}"), _LOAD)
    except CannotHappenHere as why:
        pytest.skip(str(why))
    assert findings.clean, described(findings)
    assert findings.seen["readings in the history"] > 300
    _items.append(findings.seen["items sent"])
