"""The faults of a NATS cluster, once each, and a bug that they must reveal."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.chaos.fault import Fault
from tests.acceptance.chaos.nats_stack import NatsStack
from tests.acceptance.chaos.nemesis import FAULTS, possible
from tests.acceptance.chaos.one_by_one import OneByOne, one_by_one
from tests.acceptance.chaos.report import described, found
from tests.acceptance.chaos.runner import Load, run_cycle
from tests.acceptance.chaos.workload import ENOUGH
from tests.until import wait_until

_LOAD = Load(count=300, rate=400.0)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneByOne]:
    with one_by_one(NatsStack, tmp_path_factory.mktemp("chaos")) as faults:
        yield faults


@pytest.mark.parametrize("name", [name for name in possible(NatsStack) if FAULTS[name].place == "stream"])
def test_nothing_is_lost_or_counted_twice_by(name: str, faults: OneByOne) -> None:
    assert faults.strike(name, _LOAD).seen["readings in the history"] > 250


def kill(stack: NatsStack, rng: random.Random) -> Iterator[None]:
    """When the stream has acknowledgements: the bridge counts one before it is sent."""
    wait_until(lambda: stack.acknowledged() > ENOUGH, "the stream has acknowledgements")
    stack.kill_bridge()
    yield


def test_acknowledgement_before_the_commit_is_found(tmp_path: Path) -> None:
    stack = NatsStack(tmp_path, seed=1, first=("ack-before-commit", 0))
    try:
        findings = run_cycle(stack, 0, [Fault("planted", kill, 0.5, alone=True)], random.Random(1), _LOAD)
    finally:
        stack.close()
    assert found(findings)["lost"], described(findings)
