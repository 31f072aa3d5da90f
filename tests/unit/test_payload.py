"""Objects that violate the contract: which errors `leniently` tolerates, for every measure of every kind."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.contract import KINDS, Kind, Measure
from bridge.formats.payload import PAYLOADS
from bridge.reading import FieldWarning
from tests.readings import json_values


class Case(NamedTuple):
    kind: Kind
    measure: Measure

    @property
    def good(self) -> dict[str, Any]:
        """Each measure of the kind, within its limits."""
        return {**self.kind.example, **{m.name: m.most for m in self.kind.measures}}

    @property
    def others(self) -> dict[str, float]:
        return {m.name: m.most for m in self.kind.measures if m is not self.measure}


CASES = [Case(kind, measure) for kind in KINDS for measure in kind.measures]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind.name}-{case.measure.name}")
each_gauge = pytest.mark.parametrize(
    "case", [c for c in CASES if c.measure.sort == "gauge"], ids=lambda case: f"{case.kind.name}-{case.measure.name}"
)
each_energy = pytest.mark.parametrize(
    "case", [c for c in CASES if c.measure.sort != "gauge"], ids=lambda case: f"{case.kind.name}-{case.measure.name}"
)


def wrong_values(measure: Measure) -> list[object]:
    beyond = [measure.most + 1, measure.least - 1, 1e300, -1e300, 10**400]
    return [*beyond, "1", "", True, False, [], [1], {}, {"value": 1}, float("nan"), float("inf"), float("-inf")]


@each
def test_null_is_absent(case: Case) -> None:
    reading, warnings = PAYLOADS[case.kind.name].leniently(case.good | {case.measure.name: None})
    assert reading.values() == case.others
    assert warnings == ()
    assert reading.extra is None


@each
def test_limits_themselves_are_within(case: Case) -> None:
    for value in (case.measure.least, case.measure.most):
        reading = PAYLOADS[case.kind.name].from_fields(case.good | {case.measure.name: value})
        assert reading.values()[case.measure.name] == value


@each_gauge
def test_wrong_gauge_is_refused_alone_with_its_original(case: Case) -> None:
    name = case.measure.name
    for value in wrong_values(case.measure):
        reading, (warning,) = PAYLOADS[case.kind.name].leniently(case.good | {name: value, "note": 1})
        assert reading.values() == case.others, value
        assert (warning.code, warning.field) == ("refused", name)
        assert warning.detail.startswith("Input should be")
        assert reading.extra is not None
        assert list(reading.extra) == ["note", "refused"]
        assert reading.extra["refused"][name] is value


@each_gauge
def test_wrong_gauge_alone_is_no_reading(case: Case) -> None:
    nothing_else = {name: value for name, value in case.good.items() if name not in case.others}
    with pytest.raises(ValidationError, match=case.measure.name):
        PAYLOADS[case.kind.name].leniently(nothing_else | {case.measure.name: "x"})


@each_energy
def test_wrong_energy_is_no_reading_and_is_named(case: Case) -> None:
    for value in wrong_values(case.measure):
        with pytest.raises(ValidationError, match=case.measure.name):
            PAYLOADS[case.kind.name].leniently(case.good | {case.measure.name: value})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_measure_is_no_reading_and_all_are_named(kind: Kind) -> None:
    nothing = {kind.id_field: "X", "timestamp": "2026-02-10T10:15:00Z", "firmware": 1}
    for fields in (nothing, nothing | {measure.name: None for measure in kind.measures}):
        with pytest.raises(ValidationError) as raised:
            PAYLOADS[kind.name].leniently(fields)
        assert all(measure.name in str(raised.value) for measure in kind.measures)


def test_name_that_is_not_unicode_is_dropped_with_any_other_error() -> None:
    fields = {**KINDS[0].example, "\ud800": 1}
    reading, warnings = PAYLOADS["vehicle"].leniently(fields)
    assert reading.extra is None
    assert warnings == (FieldWarning("extra", "\\ud800", "not valid Unicode"),)
    reading, warnings = PAYLOADS["vehicle"].leniently({**fields, "soc": 101})
    assert [warning.field for warning in warnings] == ["\\ud800", "soc"]


def _any_fields(kind: Kind) -> st.SearchStrategy[tuple[Kind, dict[str, Any]]]:
    names = [kind.id_field, "timestamp", *(measure.name for measure in kind.measures), "note"]
    values = st.sampled_from([0, 50.5, None, "X", "2026-02-10T10:15:00Z"]) | json_values
    return st.tuples(st.just(kind), st.dictionaries(st.sampled_from(names) | st.text(), values))


@given(st.one_of(*map(_any_fields, KINDS)))
def test_any_fields_are_a_reading_or_a_named_reason(of_kind: tuple[Kind, dict[str, Any]]) -> None:
    kind, fields = of_kind
    problems: list[Any] = []
    try:
        reading, warnings = PAYLOADS[kind.name].leniently(fields)
    except ValidationError as error:
        problems += error.errors()
    if problems:
        assert all(problem["loc"] or problem["type"] == "no_measure" for problem in problems)
    else:
        refused = {warning.field for warning in warnings if warning.code == "refused"}
        measured = {m.name: fields[m.name] for m in kind.measures if fields.get(m.name) is not None}
        assert reading.values() == {name: value for name, value in measured.items() if name not in refused}
        assert refused <= {measure.name for measure in kind.of_sort("gauge")}
