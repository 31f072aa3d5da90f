"""CSV of every list that the API answers or imports (RFC 4180, UTF-8, a header row).

A spreadsheet evaluates a text that begins with `=`, `+`, `-`, `@`, a tab or CR as a formula. Such a text is written
with a leading apostrophe, which reading removes: every text that was written is read back unchanged.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from pydantic import BaseModel

from api.problems import invalid, unprocessable

_FORMULA = re.compile(r"'*[=+\-@\t\r]").match
_DISARMED = re.compile(r"'+[=+\-@\t\r]").match

Cell: TypeAlias = str | float | datetime | Sequence[object] | None


def csv_text(rows: Iterable[Sequence[Cell]]) -> str:
    """The rows as lines that end in CRLF.

    A text has its formulas disabled; a number is no formula. Null is empty, a boolean is `true` or `false`, a list has
    semicolons between its parts, and a time has microseconds even where they are zero, so that a file has one format.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(map(_write, row) for row in rows)
    return text.getvalue()


def columns(model: type[BaseModel]) -> list[str]:
    """The names of the fields in JSON and CSV."""
    return [info.alias or name for name, info in model.model_fields.items()]


def cells(model: type[BaseModel], item: BaseModel) -> list[Cell]:
    """The values of an item in the columns of its model, or of a model that it extends."""
    return [getattr(item, name) for name in model.model_fields]


def csv_rows(
    body: bytes, columns: Collection[str], required: Collection[str]
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """The line on which each row begins (the header is line 1) and its cells by column; blank lines are skipped.

    The cells are None where their number differs from the header's. A byte order mark is accepted. Raises 422 for text
    that is not UTF-8 or not CSV, and for a header with unknown, repeated or missing columns.
    """
    try:
        reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError as error:
        raise invalid("body", f"is not UTF-8: {error.reason} at byte {error.start}") from None
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if not cells:
                pass
            elif header is None:
                header = _header(cells, columns, required)
            else:
                yield line, _by_column(header, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise unprocessable([{"line": line, "field": "body", "reason": f"is not CSV: {error}"}]) from None
    if header is None:
        raise invalid("body", "has no header row")


def _header(cells: list[str], columns: Collection[str], required: Collection[str]) -> list[str]:
    unknown = [name for name in cells if name not in columns]
    repeated = sorted({name for name in cells if cells.count(name) > 1} - set(unknown)) if not unknown else []
    faults = [(name, f"unknown column; the columns are {','.join(columns)}") for name in unknown]
    faults += [(name, "the column is repeated") for name in repeated]
    faults += [(name, "the column is missing") for name in required if name not in cells]
    if faults:
        raise unprocessable([{"line": 1, "field": name, "reason": reason} for name, reason in faults[:100]])
    return cells


def _by_column(header: list[str], cells: list[str]) -> dict[str, str] | None:
    return dict(zip(header, map(_arm, cells), strict=True)) if len(cells) == len(header) else None


def _write(cell: Cell) -> str | float | None:
    """A cell as a text, or as a number that is written as in JSON."""
    if cell is None or isinstance(cell, float):  # First, because these are most cells of a history.
        return cell
    if isinstance(cell, str):
        return _disarm(cell)
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(cell, bool):
        return str(cell).lower()
    return cell if isinstance(cell, int) else _disarm(";".join(map(str, cell)))


def _disarm(cell: str) -> str:
    return f"'{cell}" if _FORMULA(cell) else cell


def _arm(cell: str) -> str:
    return cell[1:] if _DISARMED(cell) else cell
