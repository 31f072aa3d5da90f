"""CSV that the API writes is read back unchanged and contains no formula for a spreadsheet."""

import contextlib
import csv
import io
import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from api.csv_format import csv_rows, csv_text
from api.problems import Problem
from bridge.reading import parse_timestamp

_cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text("'=+-@\t\r\n,\";a ", max_size=6)


@given(st.lists(st.tuples(_cells, _cells), max_size=5))
@example([("'=x", "''=x"), ("=1", "-1"), ("\r", "\n"), ("", "\0")])
def test_any_cells_come_back_and_none_is_a_formula(rows: list[tuple[str, str]]) -> None:
    text = csv_text([("a", "b"), *rows])
    read = [found for _, found in csv_rows(text.encode(), ("a", "b"), ("a",))]
    assert read == [{"a": a, "b": b} for a, b in rows]
    raw = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in raw if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
@example(-1.5)
@example(-0.0)
@example(1e-7)
def test_number_is_no_formula_and_comes_back(number: float) -> None:
    text = csv_text([(number, None)])
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?,\r\n", text)
    assert type(number)(text.removesuffix(",\r\n")) == number


@given(st.datetimes(timezones=st.sampled_from([UTC, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/St_Johns")])))
@example(datetime(2026, 2, 10, tzinfo=UTC))
def test_every_time_has_microseconds_and_comes_back(time: datetime) -> None:
    assume(datetime(2, 1, 1, tzinfo=UTC) < time < datetime(9999, 1, 1, tzinfo=UTC))
    text = csv_text([(time,)]).removesuffix("\r\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert parse_timestamp(text) == time.astimezone(UTC)  # An ambiguous local time equals no time of another zone.


def test_list_is_one_text_and_boolean_is_that_of_json() -> None:
    assert csv_text([(["=1", "b,c"], [], True, False)]) == '"\'=1;b,c",,true,false\r\n'


@given(st.binary(max_size=60))
def test_any_bytes_are_rows_or_a_problem(body: bytes) -> None:
    with contextlib.suppress(Problem):
        for line, _ in csv_rows(b"a,b\n" + body, ("a", "b"), ()):
            assert line >= 2


@pytest.mark.parametrize(("body", "line"), [(b"a\nx\n", 2), (b"\n\na\n\nx\n", 5), (b'a\n"1\n2"\nx\n', 4)])
def test_line_is_where_the_row_begins(body: bytes, line: int) -> None:
    *_, (found, cells) = csv_rows(body, ("a",), ("a",))
    assert (found, cells) == (line, {"a": "x"})
