"""The comparison of this machine's clock with the database's, with both clocks set by the test."""

from datetime import UTC, datetime, timedelta

import pytest

from bridge import clock as clock_module
from bridge.clock import EVERY_S, Clock
from bridge.errors import ClocksDiffer

NOON = datetime(2026, 2, 10, 12, tzinfo=UTC)


class Machine:
    """Its two clocks."""

    def __init__(self) -> None:
        self.wall_s = NOON.timestamp()
        self.steady_s = 1_000.0

    def pass_(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(clock_module, "wall_s", lambda: machine.wall_s)
    monkeypatch.setattr(clock_module, "steady_s", lambda: machine.steady_s)
    return machine


def test_nothing_is_judged_before_the_first_comparison(machine: Machine) -> None:
    clock = Clock(30)
    assert clock.is_due
    assert clock.ahead_s is None
    with pytest.raises(ClocksDiffer, match="not been compared"):
        clock.now()


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        (NOON, None),
        (NOON + timedelta(seconds=29), None),
        (NOON - timedelta(seconds=29), None),
        (NOON + timedelta(hours=1), "this machine's clock is 3600 s behind the database's: correct the wrong one"),
        (NOON - timedelta(seconds=31), "this machine's clock is 31 s ahead of the database's: correct the wrong one"),
    ],
)
def test_difference_beyond_the_limit_is_a_problem(machine: Machine, database: datetime, problem: str | None) -> None:
    clock = Clock(30)
    clock.compare(database, machine.steady_s)
    assert clock.problem == problem
    assert clock.ahead_s == (NOON - database).total_seconds()
    if problem is None:
        assert clock.now() == NOON
    else:
        with pytest.raises(ClocksDiffer):
            clock.now()


@pytest.mark.parametrize("step_s", [3_600, -3_600, 31, -31])
def test_step_of_this_machine_is_noticed_without_another_comparison(machine: Machine, step_s: float) -> None:
    clock = Clock(30)
    clock.compare(NOON, machine.steady_s)
    machine.pass_(3)
    assert clock.now() == NOON + timedelta(seconds=3)
    machine.wall_s += step_s
    assert clock.is_due
    with pytest.raises(ClocksDiffer):
        clock.now()
    machine.wall_s -= step_s
    assert clock.now() == NOON + timedelta(seconds=3)


def test_slow_answer_is_no_difference(machine: Machine) -> None:
    """The database's time may be that of any moment between the question and the answer."""
    asked_at_s = machine.steady_s
    for database in (NOON, NOON + timedelta(seconds=50)):
        machine.wall_s, machine.steady_s = NOON.timestamp() + 50, asked_at_s + 50
        clock = Clock(5)
        clock.compare(database, asked_at_s)
        assert clock.problem is None


def test_comparison_is_due_again_after_a_while(machine: Machine) -> None:
    clock = Clock(30)
    clock.compare(NOON, machine.steady_s)
    assert not clock.is_due
    machine.pass_(EVERY_S)
    assert clock.is_due
    assert clock.problem is None
