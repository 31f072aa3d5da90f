"""CSV of lists that are edited in a spreadsheet and imported again (RFC 4180, UTF-8, a header row).

A spreadsheet evaluates a cell that begins with `=`, `+`, `-`, `@`, a tab or CR as a formula. Such a cell is written
with a leading apostrophe, which reading removes: every cell that was written is read back unchanged.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from api.problems import invalid, unprocessable

_FORMULA = re.compile(r"'*[=+\-@\t\r]").match
_DISARMED = re.compile(r"'+[=+\-@\t\r]").match


def csv_text(rows: Iterable[Sequence[str | float | None]]) -> str:
    """The rows as lines that end in CRLF, with formulas disabled. A number is no formula; null is empty."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_disarm(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


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


def _disarm(cell: str) -> str:
    return f"'{cell}" if _FORMULA(cell) else cell


def _arm(cell: str) -> str:
    return cell[1:] if _DISARMED(cell) else cell
