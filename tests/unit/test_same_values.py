"""Equality of two readings with the same identity: as in the database's jsonb, not as Python's `==`."""

import json
from typing import Any

import pytest
from hypothesis import given

from bridge.reading import same_values
from tests.readings import SEED_TIME, json_values, readings, vehicle
from tests.same_json import DIFFERENT, SAME


def with_note(note: Any) -> Any:
    return vehicle(at=SEED_TIME, note=note)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_values_that_are_the_same(one: str, other: str) -> None:
    assert same_values(with_note(json.loads(one)), with_note(json.loads(other)))
    assert same_values(with_note([{"a": json.loads(one)}]), with_note([{"a": json.loads(other)}]))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_values_that_are_different(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        assert not same_values(with_note(json.loads(first)), with_note(json.loads(second)))
        assert not same_values(with_note([{"a": json.loads(first)}]), with_note([{"a": json.loads(second)}]))


def test_measure_that_is_absent_is_another_value_than_any() -> None:
    plain = vehicle(at=SEED_TIME)
    assert not same_values(plain, plain.changed(soc=None))
    assert not same_values(plain.changed(soc=None), plain.changed(battery_temp=None))
    assert not same_values(plain, vehicle(at=SEED_TIME, note=None))


@given(readings, json_values)
def test_reading_is_the_same_as_itself_read_again(reading: Any, note: Any) -> None:
    one = reading.with_extra({"note": note})
    other = reading.with_extra(json.loads(json.dumps({"note": note})))
    assert same_values(one, other)
