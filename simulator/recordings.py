"""Recordings in the project's own formats, and functions to read the lines of any recording.

A line that is not a reading is an error that names file, line, field and reason, because a replay that silently skips
lines proves nothing.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from bridge.contract import KINDS, Kind
from bridge.formats.payload import PAYLOADS
from bridge.reading import Reading, jsonb_text

Row = dict[str, str | None]

_NUMBERS = {kind.id_field: frozenset(measure.name for measure in kind.measures) for kind in KINDS}


class NotARecording(ValueError):
    """A file or a line that cannot be read; the text names file, line, field and reason."""


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The file as UTF-8, with or without a byte order mark. Raises `NotARecording` for other encodings."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield file
        except (UnicodeDecodeError, csv.Error) as error:
            raise NotARecording(f"{path}: {error}") from None


def rows(path: Path, delimiter: str = ",") -> Iterator[tuple[str, Row]]:
    """Each row by the header's names, with its place as `file:line`. Raises `NotARecording` for too many fields."""
    with opened(path) as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row:
                raise NotARecording(f"{where}: the row has more fields than the header")
            yield where, row


def text(where: str, row: Row, name: str) -> str:
    """The text of the field. Raises `NotARecording` when the row has no such field."""
    value = row.get(name)
    if value is None:
        raise NotARecording(f"{where}: {name}: the field is missing")
    return value


def number(where: str, row: Row, name: str) -> float:
    """The field as a finite number. Raises `NotARecording` for anything else."""
    written = text(where, row, name)
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise NotARecording(f"{where}: {name}: {written!r} is not a finite number")
    return value


def reading(where: str, fields: Mapping[str, object]) -> Reading:
    """The fields, by their names in the contract, as a reading of the kind of their id; raises like `checked`."""
    named = [kind for kind in KINDS if kind.id_field in fields]
    if len(named) != 1:
        raise NotARecording(f"{where}: either {' or '.join(kind.id_field for kind in KINDS)} is required")
    return checked(where, named[0], fields)


def checked(where: str, kind: Kind, fields: Mapping[str, object]) -> Reading:
    """The fields, by their names in the contract, as a reading that the bridge accepts; a null measure is absent.

    Raises `NotARecording` for a value outside the contract's limits, and for extra fields that cannot be stored.
    """
    try:
        measured = _NUMBERS[kind.id_field]
        given = {name: value for name, value in fields.items() if value is not None or name not in measured}
        valid = PAYLOADS[kind.name].from_fields(given)
        jsonb_text(valid.extra or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise NotARecording(": ".join([where, *map(str, first["loc"]), first["msg"]])) from None
    except ValueError as error:
        raise NotARecording(f"{where}: extra fields: {error}") from None
    return valid


def canonical_csv(path: Path) -> Iterator[Reading]:
    """CSV whose header has any of the contract's fields; an empty cell is an absent measure.

    Other columns become extra fields, kept as text.
    """
    return _in_order_of_time(reading(where, _typed(where, row)) for where, row in rows(path))


def _typed(where: str, row: Row) -> dict[str, str | float]:
    """The measures of the row's kind as numbers; a measure of another kind is an extra field."""
    numbers = next((names for id_field, names in _NUMBERS.items() if id_field in row), frozenset[str]())
    given = [name for name in row if name not in numbers or text(where, row, name).strip()]
    return {name: (number if name in numbers else text)(where, row, name) for name in given}


def canonical_ndjson(path: Path) -> Iterator[Reading]:
    """One reading of the contract a line; empty lines are skipped."""
    return _in_order_of_time(reading(where, fields) for where, fields in _objects(path))


def _objects(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    with opened(path) as file:
        for number_of_line, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}:{number_of_line}"
                yield where, _object(where, line)


def _object(where: str, line: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NotARecording(f"{where}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise NotARecording(f"{where}: a reading must be a JSON object")
    return fields


def _in_order_of_time(readings: Iterator[Reading]) -> Iterator[Reading]:
    """Sort by time, stable for equal times, because files of several devices are often concatenated."""
    return iter(sorted(readings, key=lambda each: each.timestamp))
