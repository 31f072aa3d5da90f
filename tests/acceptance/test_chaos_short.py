"""Every fault of the platform with one database and one broker, once: the short form of `make chaos`."""

from collections.abc import Iterator

import pytest

from tests.acceptance.chaos.disk import CannotHappenHere
from tests.acceptance.chaos.nemesis import possible
from tests.acceptance.chaos.one_by_one import OneByOne, one_by_one
from tests.acceptance.chaos.runner import Load
from tests.acceptance.chaos.stack import Stack

_LOAD = Load(count=360, rate=400.0)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneByOne]:
    with one_by_one(Stack, tmp_path_factory.mktemp("chaos")) as faults:
        yield faults


@pytest.mark.parametrize("name", possible(Stack))
def test_nothing_is_lost_or_counted_twice_by(name: str, faults: OneByOne) -> None:
    try:
        findings = faults.strike(name, _LOAD)
    except CannotHappenHere as why:
        pytest.skip(str(why))
    assert findings.seen["readings in the history"] > 300
