"""Pagination by cursor: a page contains the position of the next, so rows inserted meanwhile shift nothing."""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isnan
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query
from starlette.datastructures import QueryParams

from api.period import EARLIEST, LATEST
from api.problems import Problem, invalid
from bridge.reading import format_timestamp, is_device_id, parse_timestamp

Cursor = Annotated[str | None, Query(max_length=1_300, description="`nextCursor` of the previous page.")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="Items per page.")]


def encode_cursor(*position: object) -> str:
    """The position of a page's last item, opaque to the caller."""
    parts = [format_timestamp(p) if isinstance(p, datetime) else p for p in position]
    return base64.urlsafe_b64encode(json.dumps(parts, ensure_ascii=False).encode()).decode().rstrip("=")


def decode_device(cursor: str | None) -> str:
    """The device after which a page begins; an empty string before all. Raises 422."""
    if cursor is None:
        return ""
    (device,) = _decode(cursor, 1)
    return _device(device)


def decode_time(cursor: str) -> datetime:
    """The time after which a page begins. Raises 422."""
    (time,) = _decode(cursor, 1)
    return _time(time)


def decode_time_and_device(cursor: str) -> tuple[datetime, str]:
    """The time and device after which a page begins. Raises 422."""
    time, device = _decode(cursor, 2)
    return _time(time), _device(device)


class Position(NamedTuple):
    """The item with which a page of figures begins: the period that is divided, the item's name and its begin, and what
    the list is about."""

    start: datetime
    end: datetime
    name: str
    at: datetime
    about: str


def decode_position(cursor: str) -> Position:
    """The position that a cursor holds. Raises 422."""
    start, end, name, at, about = _decode(cursor, 5)
    position = Position(_time(start), _time(end), _text(name), _time(at), _text(about))
    if not EARLIEST <= position.start <= position.at < position.end <= LATEST:
        raise _not_ours()
    return position


class Rank(NamedTuple):
    """The place after which a page of a list begins that is ordered by a figure: the period and the instant of the
    figures, the name of the order, and the figures, kind and id of the last item."""

    start: datetime
    end: datetime
    at: datetime
    """The time of the first page."""
    order: str
    place: tuple[float, float, str, str]


def decode_rank(cursor: str) -> Rank:
    """The place that a cursor holds. Raises 422."""
    start, end, at, order, figure, severity, kind, id_ = _decode(cursor, 8)
    rank = Rank(
        _time(start),
        _time(end),
        _time(at),
        _text(order),
        (_number(figure), _number(severity), _text(kind), _device(id_)),
    )
    if not (EARLIEST <= rank.start < rank.end <= LATEST and EARLIEST <= rank.at <= LATEST):
        raise _not_ours()
    return rank


def decode_time_and_name(cursor: str) -> tuple[datetime, str]:
    """The time and the name at that time after which a page begins. Raises 422."""
    time, name = _decode(cursor, 2)
    if not isinstance(name, str):
        raise _not_ours()
    return _time(time), name


def decode_time_and_uuid(cursor: str) -> tuple[datetime, UUID]:
    """The time and the id at that time after which a page begins. Raises 422."""
    time, id_ = _decode(cursor, 2)
    try:
        return _time(time), UUID(_text(id_))
    except ValueError:
        raise _not_ours() from None


def decode_number(cursor: str, most: int) -> int:
    """The number after which a page begins, from 0 to `most`. Raises 422."""
    (number,) = _decode(cursor, 1)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
        raise _not_ours()
    return number


def _decode(cursor: str, length: int) -> Sequence[Any]:
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _not_ours() from None
    if not isinstance(parts, list) or len(parts) != length:
        raise _not_ours()
    return parts


def _device(part: object) -> str:
    if not isinstance(part, str) or not is_device_id(part):
        raise _not_ours()
    return part


def _text(part: object) -> str:
    if not isinstance(part, str) or not re.fullmatch("[^\\0\ud800-\udfff]*", part):
        raise _not_ours()
    return part


def _number(part: object) -> float:
    if isinstance(part, bool) or not isinstance(part, int | float) or (isinstance(part, float) and isnan(part)):
        raise _not_ours()
    return part


def _time(part: object) -> datetime:
    try:
        return parse_timestamp(part)
    except ValueError:
        raise _not_ours() from None


def _not_ours() -> Problem:
    return invalid("cursor", "is not a nextCursor of this list")


def next_link(query: QueryParams, cursor: str | None, fixed: Mapping[str, str] | None = None) -> dict[str, str]:
    """The headers that link to the next page, for clients that do not read `nextCursor` (RFC 8288).

    `fixed` are parameters that the next page must have. The link consists of the query only, relative to the request,
    so it does not depend on the Host header or on a proxy's path prefix.
    """
    if cursor is None:
        return {}
    changed = {**(fixed or {}), "cursor": cursor}
    following = [(name, value) for name, value in query.multi_items() if name not in changed]
    link = f'<?{urlencode([*following, *changed.items()])}>; rel="next"'
    return {"Link": link, "X-Next-Cursor": cursor}
