"""Unknown fields: stored unchanged within the limits, otherwise dropped with a warning."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.formats.document import deeper_than
from bridge.formats.extra import MAX_BYTES, MAX_DEPTH, MAX_FIELDS, MAX_ORIGINALS_BYTES, bounded
from bridge.formats.payload import REFUSED
from bridge.reading import jsonb_text
from tests.readings import json_values


def nested(levels: int) -> object:
    value: object = 1
    for n in range(levels):
        value = [value] if n % 2 else {"a": value}
    return value


def of_size(size: int) -> dict[str, Any]:
    """One field whose JSON has so many bytes."""
    return {"n": "x" * (size - len('{"n": ""}'))}


@pytest.mark.parametrize(
    "extra",
    [
        {"firmware": "2.1", "cells": [1, {"t": None}], "driver": "Zoë 🚗"},
        {str(n): n for n in range(MAX_FIELDS)},
        {"n": nested(MAX_DEPTH)},
        of_size(MAX_BYTES),
        {"backslash": "\\u0000"},
    ],
    ids=["plain", "as many as may be", "as deep as may be", "as large as may be", "an escaped backslash"],
)
def test_fields_within_their_bounds_are_kept_as_they_are(extra: dict[str, Any]) -> None:
    kept, warnings = bounded(extra)
    assert kept is extra
    assert warnings == []


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({str(n): n for n in range(MAX_FIELDS + 1)}, "129 unknown fields; at most 128 are stored"),
        (of_size(MAX_BYTES + 1), "16385 bytes of unknown fields; at most 16384 are stored"),
        ({"n": "é" * (MAX_BYTES // 2)}, "16393 bytes of unknown fields; at most 16384 are stored"),
    ],
    ids=["too many", "too large", "too large as UTF-8"],
)
def test_fields_beyond_their_bounds_together_are_all_dropped(extra: dict[str, Any], reason: str) -> None:
    kept, (warning,) = bounded(extra)
    assert kept is None
    assert warning == ("extra", "extra", reason)


@pytest.mark.parametrize("value", [[1] * 8_193, [[]] * 8_193, {str(n): {} for n in range(8_193)}, [[[1] * 9_000]]])
def test_fields_with_more_values_than_fit_are_dropped_without_being_serialized(value: object) -> None:
    kept, (warning,) = bounded({"note": "hi", "x": value})
    assert kept is None
    assert warning == ("extra", "extra", "more than 8192 values in unknown fields; at most 16384 bytes are stored")


def test_original_of_a_refused_gauge_is_cut_without_being_serialized_whole() -> None:
    kept, _ = bounded({REFUSED: {"soc": [1] * 1_000_000}})
    assert kept == {REFUSED: {"soc": ("[" + "1, " * 100)[:200]}}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("note", "a\0b", "NUL cannot be stored"),
        ("note", [{"a\0b": 1}], "NUL cannot be stored"),
        ("note", float("nan"), "a number that is not finite cannot be stored"),
        ("note", "\ud800", "not valid Unicode"),
        ("note", nested(MAX_DEPTH + 1), "nested more than 100 levels deep"),
        ("note", nested(400), "nested more than 100 levels deep"),
        ("no\0te", 1, "NUL cannot be stored"),
    ],
)
def test_field_that_cannot_be_stored_is_dropped_alone_and_named(name: str, value: object, reason: str) -> None:
    kept, (warning,) = bounded({"before": 1, name: value, "after": 2})
    assert kept == {"before": 1, "after": 2}
    assert (warning.code, warning.field) == ("extra", ascii(name)[1:-1])
    assert reason in warning.detail


def test_originals_of_refused_gauges_outlive_what_is_too_much_and_are_shortened() -> None:
    refused = {"soc": "high", "batteryTemp": "x" * 10_000}
    kept, (warning,) = bounded({REFUSED: refused, "note": "x" * MAX_BYTES})
    assert kept == {REFUSED: {"soc": "high", "batteryTemp": "x" * 200}}
    assert warning.field == "extra"


_any_text = st.text(st.characters())
_any_values = st.recursive(
    json_values | _any_text | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_any_text, inner, max_size=3),
)
_refused = st.fixed_dictionaries({REFUSED: st.dictionaries(_any_text, _any_values, max_size=4)})


@given(st.dictionaries(_any_text, _any_values, max_size=4) | _refused)
@example({REFUSED: {"\0": 1}})
@example({REFUSED: {str(n): "x" * 300 for n in range(1000)}})
@example({REFUSED: {"soc": nested(400)}, "n": float("nan")})
def test_what_is_kept_can_be_stored_and_what_is_not_is_named(extra: dict[str, Any]) -> None:
    kept, warnings = bounded(extra)
    assert kept is None or kept == extra or kept
    assert len(jsonb_text(kept or {}).encode()) <= MAX_BYTES + MAX_ORIGINALS_BYTES
    assert not deeper_than(MAX_DEPTH + 1, kept)
    named = {warning.field for warning in warnings}
    for name, value in extra.items():
        if name == REFUSED or "extra" in named:
            continue
        assert (ascii(name)[1:-1][:100] in named) != (name in (kept or {}))
        assert kept is None or name not in kept or json.dumps(kept[name]) == json.dumps(value)


def test_refused_gauges_do_not_count_against_the_unknown_fields() -> None:
    own = {f"f{n}": n for n in range(MAX_FIELDS)}
    assert bounded({**own, REFUSED: {"soc": 500}}) == ({**own, REFUSED: {"soc": 500}}, [])


def test_many_fields_that_cannot_be_stored_are_told_in_few_warnings() -> None:
    kept, warnings = bounded({f"f{n}": float("nan") for n in range(100)} | {"good": 1})
    assert kept == {"good": 1}
    assert [warning.field for warning in warnings] == ["f0", "f1", "f2", "extra"]
    assert warnings[-1].detail == "97 more fields cannot be stored"
