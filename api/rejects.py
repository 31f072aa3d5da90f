"""Rejected messages: a list, and each with its payload.

A limited key sees the rejects that surely are those of its devices: the topic names the device, so the broker has
allowed the sender to report it, or the message is a valid reading of the device that conflicts with a stored one. The
other bodies of HTTP name their devices themselves; only an unlimited key sees these.
"""

import base64
import codecs
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from api.csv_format import columns
from api.database import connection
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.paging import Cursor, Limit, decode_time_and_uuid, encode_cursor, next_link
from api.patterns import TEXT_PATTERN
from api.period import AskedPeriod, Period
from api.problems import Problem
from api.reject_models import Payload, Reject, RejectPage, RejectWithPayload
from api.routing import needs, only_seen
from api.services import WithServices, WithSight
from api.sight import Sight
from api.streaming import CSV_PAGE, Page, csv_stream, first_rows
from bridge.contract import KINDS
from bridge.errors import Reason

router = APIRouter(prefix="/v1/rejects", tags=["rejects"])

MOST_SHOWN_BYTES = 65_536
"""Bytes of a payload in an answer."""
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "No reject has this id"}}
_FIRST_ID = UUID(int=0)
_OF_TOPIC = " ".join(
    f"WHEN topic = '{before}' || device || '{after}' THEN '{kind.name}'"
    for kind in KINDS
    for before, after in (kind.topic("|").split("|"),)
)
# A conflict's payload is encoded by the store and begins with the name of the id field (view `reading_conflict`).
_OF_CONFLICT = " ".join(
    f"WHEN substring(payload FROM 1 FOR {len(start)}) = '{start}'::bytea THEN '{kind.name}'"
    for kind in KINDS
    for start in (f'{{"{kind.id_field}"',)
)
_REJECTS = (
    f"(SELECT *, CASE {_OF_TOPIC} "  # noqa: S608
    f"WHEN topic IS NULL AND reason = 'conflict' THEN CASE {_OF_CONFLICT} END END AS kind FROM rejected_message) AS m"
)
# An MQTT topic may have 65,535 bytes.
_COLUMNS = (
    "id, received_at, source, left(topic, 256) AS topic, kind, device, sender, reason, left(detail, 1000) AS detail, "
    "format, length(payload) AS bytes, replayed_at"
)
_ONE = f"SELECT {_COLUMNS}, substring(payload FROM 1 FOR {MOST_SHOWN_BYTES}) AS payload FROM {_REJECTS} WHERE id = $1"  # noqa: S608
_FILTERS = {
    "reason": "reason = {}",
    "source": "source = {}",
    "topic": "topic = {}",
    "device": "device = {}",
    "sender": "sender = {}",
    "replayed": "(replayed_at IS NOT NULL) = {}",
}

_NOT_KEPT = """
SELECT coalesce(sum(messages), 0)::int8 FROM reject_excess
WHERE since > $1::timestamptz - interval '1 hour' AND since < $2
  AND ($3::text IS NULL OR reason = $3) AND ($4::text IS NULL OR source = $4)
  AND ($5::text IS NULL OR device = $5) AND ($6::text IS NULL OR sender = $6)
"""

_Position = tuple[datetime, UUID]


@router.get(
    "",
    operation_id="listRejects",
    summary="List rejected messages",
    openapi_extra=needs("read", only_seen()),
    response_model=RejectPage,
    responses=CSV_RESPONSES,
)
async def list_rejects(
    request: Request,
    services: WithServices,
    sight: WithSight,
    form: AskedMediaType,
    period: AskedPeriod,
    reason: Annotated[Reason | None, Query(description="Rejected for this reason.")] = None,
    source: Annotated[
        str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Came from this source.")
    ] = None,
    topic: Annotated[
        str | None, Query(max_length=1_000, pattern=TEXT_PATTERN, description="Came on this MQTT topic.")
    ] = None,
    device: Annotated[
        str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Of devices with this id.")
    ] = None,
    sender: Annotated[
        str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Sent with the API key of this id.")
    ] = None,
    replayed: Annotated[bool | None, Query(description="Only those that were replayed, or that were not.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Messages that were rejected in the period, by the time of their arrival, the newest first and without their
    payloads: a page as JSON, or with `Accept: text/csv` the whole list, independent of `limit`."""
    texts = {"reason": reason, "source": source, "topic": topic, "device": device, "sender": sender}
    filters = {**texts, "replayed": replayed}
    sql, arguments = _page_sql(sight, {name: value for name, value in filters.items() if value is not None})

    async def page(before: _Position | None, size: int) -> Page[asyncpg.Record, _Position]:
        async with connection(services.pool) as c:
            rows = await c.fetch(sql, period.start, *(before or (period.end, _FIRST_ID)), size + 1, *arguments)
        return first_rows(rows, size, lambda row: (row["received_at"], row["id"]))

    first = None if cursor is None else decode_time_and_uuid(cursor)
    if form == "text/csv":
        return await csv_stream("rejects", columns(Reject), _cells, lambda before: page(before, CSV_PAGE), first)
    rows, last = await page(first, limit)
    not_kept = None
    if not sight.is_limited:
        async with connection(services.pool) as c:
            not_kept = await c.fetchval(_NOT_KEPT, period.start, period.end, reason, source, device, sender)
    following = None if last is None else encode_cursor(last[0], str(last[1]))
    items = [Reject.model_validate(dict(row)) for row in rows]
    found = RejectPage(items=items, next_cursor=following, not_kept=not_kept)
    return JSONResponse(found.model_dump(mode="json"), headers=_headers(request, period, following))


@router.get(
    "/{id}",
    operation_id="getReject",
    summary="Get a rejected message with its payload",
    openapi_extra=needs("read", only_seen()),
    responses=_UNKNOWN,
)
async def get_reject(
    services: WithServices, sight: WithSight, id_: Annotated[UUID, Path(alias="id")]
) -> RejectWithPayload:
    """One rejected message. Its payload is text if all of it is UTF-8, else base64; at most the first 65,536 bytes."""
    async with connection(services.pool) as c:
        row = await c.fetchrow(f"{_ONE} AND {_seen(sight, 2)}", id_, *sight.arguments)
    if row is None:
        raise Problem(404, f"there is no rejected message {id_}")
    return RejectWithPayload.model_validate({**row, "payload": payload_of(row["payload"], row["bytes"])})


def payload_of(beginning: bytes, size: int) -> Payload:
    """The payload of `size` bytes, of which `beginning` are the first ones."""
    shortened = size > len(beginning)
    try:
        # The beginning may end within a character, which is left out then.
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning, final=not shortened)
    except UnicodeDecodeError:
        return Payload(encoding="base64", content=base64.b64encode(beginning).decode(), shortened=shortened)
    return Payload(encoding="utf-8", content=text, shortened=shortened)


def _page_sql(sight: Sight, filters: dict[str, str | bool]) -> tuple[str, Sequence[object]]:
    """The statement for the page from $1 on and before the time $2 and the id $3, and its arguments from $5 on."""
    conditions = [_FILTERS[name].format(f"${n}") for n, name in enumerate(filters, start=5)]
    conditions.append(_seen(sight, 5 + len(filters)))
    where = " AND ".join(["received_at >= $1", "(received_at, id) < ($2, $3)", *conditions])
    sql = f"SELECT {_COLUMNS} FROM {_REJECTS} WHERE {where} ORDER BY received_at DESC, id DESC LIMIT $4"  # noqa: S608
    return sql, [*filters.values(), *sight.arguments]


def _seen(sight: Sight, first: int) -> str:
    return sight.condition("m.kind", "m.device", first)


def _cells(row: asyncpg.Record) -> Sequence[Any]:
    return [str(row["id"]), *row[1:]]


def _headers(request: Request, period: Period, following: str | None) -> dict[str, str]:
    """The default end is now; the next page must have the period of the first."""
    fixed = {"from": period.start.isoformat(), "to": period.end.isoformat()}
    return next_link(request.query_params, following, fixed) | {"Vary": "Accept"}
