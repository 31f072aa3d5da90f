"""The faults of a primary with a synchronous standby, once each, and the bugs that they must reveal."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.chaos.nemesis import FAULTS, possible
from tests.acceptance.chaos.one_by_one import OneByOne, one_by_one
from tests.acceptance.chaos.pair_stack import PairStack
from tests.acceptance.chaos.processes import Stuck
from tests.acceptance.chaos.report import described, found
from tests.acceptance.chaos.runner import Load, run_cycle

_LOAD = Load(count=300, rate=400.0)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneByOne]:
    with one_by_one(PairStack, tmp_path_factory.mktemp("chaos")) as faults:
        yield faults


@pytest.mark.parametrize("name", [name for name in possible(PairStack) if FAULTS[name].on is PairStack])
def test_nothing_is_lost_or_counted_twice_by(name: str, faults: OneByOne) -> None:
    assert faults.strike(name, _LOAD).seen["readings in the history"] > 250


@pytest.fixture
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PairStack]:
    """A platform whose bridge has a bug planted."""
    stack = PairStack(tmp_path, seed=1, first=(request.param, 0))
    yield stack
    stack.close()


@pytest.mark.parametrize("broken", ["unconfirmed"], indirect=True)
def test_acknowledgement_of_what_only_the_primary_has_is_found(broken: PairStack) -> None:
    findings = run_cycle(broken, 0, [FAULTS["postgres-failover-behind"]], random.Random(1), _LOAD)
    assert found(findings)["lost"], described(findings)


@pytest.mark.parametrize("broken", ["unfenced"], indirect=True)
def test_reading_written_to_a_replaced_primary_is_found(broken: PairStack) -> None:
    with pytest.raises(Stuck, match="written to a primary that was replaced"):
        run_cycle(broken, 0, [FAULTS["postgres-old-primary-alone"]], random.Random(1), _LOAD)
