"""How much the keeper does at once: it adapts to what it takes."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.keeper.pace import GOAL_S, Pace


@given(most=st.integers(1, 10_000), first=st.floats(0, 1), seconds_each=st.floats(1e-6, 100))
def test_steps_come_to_take_about_the_goal(most: int, first: float, seconds_each: float) -> None:
    pace = Pace(most, max(1, int(most * first)))
    for _ in range(20):
        pace.took(pace.size * seconds_each)
    assert 1 <= pace.size <= most
    assert pace.size == 1 or pace.size * seconds_each <= 2 * GOAL_S
    assert pace.size == most or pace.size * seconds_each >= GOAL_S / 4


def test_failure_makes_the_next_steps_much_smaller() -> None:
    pace = Pace(1000, 1000)
    pace.failed()
    assert pace.size == 125
    for _ in range(5):
        pace.failed()
    assert pace.size == 1
