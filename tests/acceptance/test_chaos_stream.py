"""The faults of a NATS cluster, once each, and a bug that they must reveal."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.chaos.fault import Fault
from tests.acceptance.chaos.nemesis import FAULTS
from tests.acceptance.chaos.report import described, found
from tests.acceptance.chaos.runner import Load, examine_all, run_cycle
from tests.acceptance.chaos.stack import Stack
from tests.acceptance.chaos.stream_stack import StreamStack
from tests.until import wait_until

_SEED = 1
_ACKS = "fleet_jetstream_acks_total"
_LOAD = Load(count=300, rate=400.0)
_cycles = itertools.count()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamStack]:
    stack = StreamStack(tmp_path_factory.mktemp("chaos"), _SEED)
    yield stack
    try:  # all cycles of this module together, because an old snapshot redelivers messages of earlier cycles
        findings = examine_all(stack)
        assert findings.clean, described(findings)
    finally:
        stack.close()


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.place == "stream"])
def test_nothing_is_lost_or_counted_twice_by(name: str, stack: StreamStack) -> None:
    findings = run_cycle(stack, next(_cycles), [FAULTS[name]], random.Random(f"{_SEED}:{name}"), _LOAD)
    assert findings.clean, described(findings)
    assert findings.seen["readings in the history"] > 250


def kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    """When it has acknowledged messages of this cycle."""
    before = stack.bridge.metric(_ACKS)
    wait_until(lambda: stack.bridge.metric(_ACKS) > before, "the bridge acknowledges")
    stack.kill_bridge()
    yield


def test_acknowledgement_before_the_commit_is_found(tmp_path: Path) -> None:
    stack = StreamStack(tmp_path, seed=1, first=("ack-before-commit", 0))
    try:
        findings = run_cycle(stack, 0, [Fault("planted", kill, 0.5, alone=True)], random.Random(1), _LOAD)
    finally:
        stack.close()
    assert found(findings)["lost"], described(findings)
