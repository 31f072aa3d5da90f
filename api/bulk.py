"""Request bodies of many rows, as a JSON array or as CSV: every row is valid, or the problem names row and field."""

import asyncio
import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from api.body import MAX_BODY_BYTES
from api.csv_format import columns, csv_rows
from api.problems import Problem, field_of, invalid, reason_of, unprocessable

MAX_ROWS = 100_000
"""Maximum number of rows in one body."""

_MOST_ERRORS = 100
_one_body = asyncio.Lock()
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII).fullmatch

RowT = TypeVar("RowT", bound=BaseModel)
Cells = Mapping[str, Callable[[str], object]]
"""Parsers of the columns whose cells are not text."""


class BulkRoute(APIRoute):
    """A route that accepts bodies of up to `body_limit` bytes; all other routes have `body.MAX_FORM_BYTES`."""

    body_limit = MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a row in its body: the line of a CSV file, from 1, or the index in a JSON array, from 0."""

    unit: Literal["line", "index"]
    number: int

    def __str__(self) -> str:
        return f"{self.unit} {self.number}"


@dataclass(frozen=True, slots=True)
class Placed(Generic[RowT]):
    """A valid row and its position."""

    place: Place
    row: RowT


@dataclass(slots=True)
class Faults:
    """Errors in the rows of a body; the problem lists the first hundred."""

    errors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, place: Place, name: str, reason: str) -> None:
        """Record an error in a field of a row."""
        self.errors.append({place.unit: place.number, "field": name, "reason": reason})

    def refuse(self, status: int = 422) -> None:
        """Raise the problem with this status if there is any error."""
        if self.errors:
            raise unprocessable(self.errors[:_MOST_ERRORS], status)

    @property
    def full(self) -> bool:
        """Whether further errors would not be listed."""
        return len(self.errors) >= _MOST_ERRORS


async def bulk_rows(request: Request, model: type[RowT], cells: Cells) -> list[Placed[RowT]]:
    """The rows of the request's body, all valid. Raises 400, 413, 415 and 422.

    Bodies are decoded in a thread, so that other requests are served meanwhile, and one at a time, because a large
    body needs a multiple of its size in memory.
    """
    is_csv = _is_csv(request.headers.get("content-type", ""))
    body = await request.body()
    async with _one_body:
        return await asyncio.to_thread(_decode, body, is_csv, model, cells)


def refuse_repeated(rows: Iterable[Placed[RowT]], key: Callable[[RowT], Hashable], name: str) -> None:
    """Raise 422 if two rows have the same key; `name` is the field that is reported."""
    seen: dict[Hashable, Place] = {}
    faults = Faults()
    for placed in rows:
        first = seen.setdefault(key(placed.row), placed.place)
        if first is not placed.place:
            faults.add(placed.place, name, f"is the same as in {first}")
    faults.refuse()


def request_body(model: type[BaseModel], example: str) -> dict[str, Any]:
    """The `requestBody` of the OpenAPI document; `example` is CSV."""
    array = {"type": "array", "maxItems": MAX_ROWS, "items": model.model_json_schema()}
    text = {"type": "string", "description": f"A header row with the columns {','.join(columns(model))}."}
    content = {"application/json": {"schema": array}, "text/csv": {"schema": text, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _required(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items() if info.is_required()]


def number_cell(text: str) -> object:
    """A number; other text is returned unchanged and refused by the validation of the field."""
    return float(text) if _NUMBER(text) else text


def list_cell(text: str) -> list[str]:
    """The parts between semicolons, without blanks around them."""
    return [part.strip() for part in text.split(";") if part.strip()]


def _is_csv(content_type: str) -> bool:
    media_type, _, parameters = content_type.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    media_type = media_type.strip().lower()
    if media_type not in ("application/json", "text/csv") or charset not in ("", "charset=utf-8", "header=present"):
        accepted = "application/json, text/csv"
        detail = f"Content-Type: {content_type} is not supported; use {accepted} in UTF-8"
        raise Problem(415, detail, {"Accept": accepted})
    return media_type == "text/csv"


def _decode(body: bytes, is_csv: bool, model: type[RowT], cells: Cells) -> list[Placed[RowT]]:
    faults = Faults()
    valid: list[Placed[RowT]] = []
    found = _csv(body, model, cells, faults) if is_csv else _json(body)
    for place, fields in found:
        if len(valid) == MAX_ROWS:
            raise Problem(413, f"the body has more than {MAX_ROWS:,} rows")
        try:
            valid.append(Placed(place, model.model_validate(fields)))
        except ValidationError as error:
            _explain(faults, place, error)
        if faults.full:
            break
    faults.refuse()
    return valid


def _explain(faults: Faults, place: Place, error: ValidationError) -> None:
    for each in error.errors(include_url=False, include_input=False):
        faults.add(place, field_of(each["loc"]) or "row", reason_of(each))


def _json(body: bytes) -> Iterator[tuple[Place, object]]:
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"not JSON: {error}") from None
    if not isinstance(rows, list):
        raise invalid("body", "should be an array of objects")
    for index, row in enumerate(rows):
        yield Place("index", index), row


def _csv(body: bytes, model: type[BaseModel], cells: Cells, faults: Faults) -> Iterator[tuple[Place, object]]:
    for line, texts in csv_rows(body, columns(model), _required(model)):
        place = Place("line", line)
        if texts is None:
            faults.add(place, "row", "has a different number of cells than the header")
            if faults.full:
                return
            continue
        yield place, {name: _cell(name, text, cells) for name, text in texts.items()}


def _cell(name: str, text: str, cells: Cells) -> object:
    """The value of a cell: an empty one is null."""
    if not text:
        return None
    read = cells.get(name)
    return text if read is None else read(text)
