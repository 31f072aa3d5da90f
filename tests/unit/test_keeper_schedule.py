"""When duties are due: in turn, again after their period, later after a failure; and when /readyz reports it."""

import math

from hypothesis import given
from hypothesis import strategies as st

from bridge.keeper.port import Duty
from bridge.keeper.schedule import FAILURES, Schedule
from bridge.store.session import Connection


async def nothing(_: Connection) -> bool:
    """No work."""
    return False


OFTEN, SELDOM = Duty("often", 60.0, nothing), Duty("seldom", 3600.0, nothing)


def test_all_are_due_at_once_and_then_after_their_period() -> None:
    schedule = Schedule([OFTEN, SELDOM], 100.0)
    for duty in (OFTEN, SELDOM):
        assert schedule.next(100.0) is duty
        schedule.succeeded(duty, 100.0)
    assert schedule.next(159.9) is None
    assert schedule.wait_s(150.0) == 10.0
    assert schedule.next(160.0) is OFTEN
    assert schedule.lag_s(OFTEN, 165.0) == 5.0
    assert schedule.lag_s(SELDOM, 165.0) == 0.0


def test_failed_duty_pauses_ever_longer_while_the_others_have_their_turn() -> None:
    schedule, now, pauses = Schedule([OFTEN, SELDOM], 0.0), 0.0, []
    for _ in range(8):
        assert schedule.next(now) is OFTEN
        schedule.failed(OFTEN, now, "locked")
        if schedule.next(now) is SELDOM:
            schedule.succeeded(SELDOM, now)
        pauses.append(schedule.wait_s(now))
        now += pauses[-1]
    assert 0.5 <= pauses[0] <= 1.0
    assert 15.0 <= pauses[-1] <= 30.0
    assert schedule.lag_s(OFTEN, now) == now, "it has been due since the start"
    schedule.succeeded(OFTEN, now)
    assert schedule.lag_s(OFTEN, now) == 0.0
    schedule.failed(OFTEN, now + 60.0, "locked")
    assert schedule.wait_s(now + 60.0) <= 1.0, "a success makes the pauses short again"


def test_problem_names_the_duty_that_failed_and_why() -> None:
    schedule = Schedule([OFTEN, SELDOM], 0.0)
    for _ in range(FAILURES - 1):
        schedule.failed(SELDOM, 1.0, "locked")
    assert schedule.problem(1.0) is None
    schedule.failed(SELDOM, 1.0, "locked")
    assert schedule.problem(1.0) == f"seldom: the last {FAILURES} runs failed: locked"
    schedule.succeeded(SELDOM, 2.0)
    assert schedule.problem(2.0) is None


def test_problem_is_also_a_duty_that_is_overdue_by_its_period() -> None:
    schedule = Schedule([OFTEN, SELDOM], 0.0)
    assert schedule.problem(60.0) is None
    assert schedule.problem(61.0) == "often: overdue by 61 s"


def test_nothing_is_due_or_lags_while_another_process_leads() -> None:
    schedule = Schedule([OFTEN, SELDOM], 0.0)
    schedule.failed(OFTEN, 0.0, "locked")
    schedule.rest()
    assert schedule.next(1e9) is None
    assert schedule.wait_s(1e9) == math.inf
    assert (schedule.lag_s(OFTEN, 1e9), schedule.problem(1e9)) == (0.0, None)
    schedule.resume(1e9)
    assert schedule.next(1e9) is OFTEN
    assert schedule.lag_s(OFTEN, 1e9) == 0.0


def test_lost_session_neither_hides_the_lag_nor_shortens_a_pause() -> None:
    schedule = Schedule([OFTEN], 0.0)
    schedule.failed(OFTEN, 0.0, "session lost")
    pause = schedule.wait_s(0.0)
    schedule.resume(0.1)
    assert schedule.wait_s(0.0) == pause
    assert schedule.lag_s(OFTEN, 0.1) == 0.1


@given(st.lists(st.floats(1.0, 100.0), min_size=8, max_size=100))
def test_duties_that_take_longer_than_their_period_take_turns(took_s: list[float]) -> None:
    duties = [Duty(f"{n}", 1.0, nothing) for n in range(4)]
    schedule, now, turns = Schedule(duties, 0.0), 0.0, []
    for seconds in took_s:
        duty = schedule.next(now)
        assert duty is not None
        turns.append(duty)
        now += seconds
        schedule.succeeded(duty, now)
    assert turns == [duties[n % 4] for n in range(len(turns))]
