"""The readings that wait for a keeper beside a benchmark's flood."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.bench.keeping import Waiting

NOON = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("readings", "quarters"), [(150_000, 1), (400_000, 3), (200_000, 2), (15_000, 1)])
def test_as_many_readings_wait_as_the_flood_has(readings: int, quarters: int) -> None:
    waiting = Waiting(readings, 10_000, NOON)
    assert waiting.until - waiting.since == quarters * timedelta(minutes=15)
    assert 0.98 * readings <= waiting.readings <= readings
    assert waiting.devices <= 10_000


def test_they_end_with_the_last_quarter_hour_before_the_flood() -> None:
    assert Waiting(150_000, 10_000, NOON + timedelta(minutes=14)).until == NOON
    assert Waiting(150_000, 10_000, NOON).until == NOON
