"""Positions in the log, and the times that they stand for."""

from datetime import UTC, datetime, timedelta

import pytest

from api.replicas.position import Mark, Marks, Position
from api.replicas.replica import State

NOON = datetime(2026, 2, 10, 12, tzinfo=UTC)


def mark(lsn: int, seconds: float, timeline: int = 1) -> Mark:
    return Mark(Position(timeline, lsn), NOON + timedelta(seconds=seconds), seconds)


def marks(*each: Mark) -> Marks:
    made = Marks()
    for one in each:
        made.add(one)
    return made


def test_position_is_the_text_that_it_is_read_from() -> None:
    position = Position(3, 0x16B3748)
    assert str(position) == "3-16B3748"
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "1-g", "1-ff", "0x1-1", "1-1 ", "1-" + "F" * 16, "1" * 10 + "-1"]
)
def test_other_text_is_no_position(text: str) -> None:
    assert Position.parse(text) is None


def test_replica_shows_the_newest_mark_that_it_has_reached() -> None:
    known = marks(mark(100, 0), mark(200, 1), mark(300, 2))
    assert known.reached(99) is None
    assert known.reached(100) == mark(100, 0)
    assert known.reached(299) == mark(200, 1)
    assert known.reached(10_000) == mark(300, 2)


def test_replica_of_a_primary_that_writes_nothing_does_not_grow_old() -> None:
    assert marks(mark(100, 0), mark(100, 60)).reached(100) == mark(100, 60)


def test_positions_of_an_earlier_timeline_stand_for_nothing() -> None:
    known = marks(mark(100, 0), mark(900, 1), mark(200, 2, timeline=2))
    assert known.reached(150) is None
    assert known.reached(900) == mark(200, 2, timeline=2)


def test_marks_are_bounded() -> None:
    known = marks(*(mark(n, n) for n in range(5_000)))
    assert known.reached(999) is None
    assert known.reached(1_000) == mark(1_000, 1_000)


def test_state_has_what_is_not_after_it() -> None:
    state = State(Position(2, 200), NOON)
    assert state.has(None)
    assert state.has(NOON)
    assert state.has(Position(2, 200))
    assert not state.has(NOON + timedelta(microseconds=1))
    assert not state.has(Position(2, 201))
    assert not state.has(Position(1, 100))
