"""A whole list as CSV, read in pages while it is sent: a slow client occupies no memory and no connection."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg
from starlette.responses import StreamingResponse

from api.csv_format import csv_text

CSV_PAGE = 1_000
"""Rows read from the database at a time."""

PositionT = TypeVar("PositionT")
NextPage = Callable[[PositionT | None], Awaitable[tuple[Sequence[asyncpg.Record], PositionT | None]]]
"""The rows after a position (None: the first), and the position after them; None when there are no more."""


async def csv_stream(
    header: Sequence[str],
    cells: Callable[[asyncpg.Record], Sequence[str]],
    next_page: NextPage[PositionT],
    start: PositionT | None,
) -> StreamingResponse:
    """The response. The first page is read before it begins, so that an unavailable database still results in a 503.

    Every row that exists throughout is sent exactly once; a row inserted or deleted meanwhile may be sent or not.
    """
    rows, position = await next_page(start)

    async def chunks() -> AsyncIterator[str]:
        page, following = rows, position
        yield csv_text([header, *map(cells, page)])
        while following is not None:
            page, following = await next_page(following)
            yield csv_text(map(cells, page))

    return StreamingResponse(chunks(), media_type="text/csv", headers={"Vary": "Accept"})


def text(value: object) -> str:
    """A cell: empty for null."""
    return "" if value is None else str(value)
