"""A whole list as CSV, read in pages while it is sent: a slow client occupies no memory and no connection."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from starlette.responses import StreamingResponse

from api.csv_format import Cell, csv_text

CSV_PAGE = 1_000
"""Rows that are read and sent at a time."""

RowT = TypeVar("RowT")
PositionT = TypeVar("PositionT")
Page = tuple[Sequence[RowT], PositionT | None]
"""Rows, and the position after them; None when there are no more."""
NextPage = Callable[[PositionT | None], Awaitable[Page[RowT, PositionT]]]
"""The page after a position; None: the first."""


async def csv_stream(
    name: str,
    header: Sequence[str],
    cells: Callable[[RowT], Sequence[Cell]],
    next_page: NextPage[PositionT, RowT],
    start: PositionT | None = None,
) -> StreamingResponse:
    """The response, to be saved as `name`.csv.

    The first page is read before it begins, so that an unavailable database still results in a 503; an error in a later
    page closes the connection before the end of the response. Every row that exists throughout is sent exactly once; a
    row inserted or deleted meanwhile may be sent or not.
    """
    rows, position = await next_page(start)

    async def chunks() -> AsyncIterator[str]:
        page, following = rows, position
        yield csv_text([header, *map(cells, page)])
        while following is not None:
            page, following = await next_page(following)
            yield csv_text(map(cells, page))

    headers = {"Vary": "Accept", "Content-Disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(chunks(), media_type="text/csv", headers=headers)


def first_rows(rows: Sequence[RowT], size: int, position: Callable[[RowT], PositionT]) -> Page[RowT, PositionT]:
    """A page of `size` rows, made of up to one row more, which shows whether it is the last page."""
    return rows[:size], position(rows[size - 1]) if len(rows) > size else None


def pages_of(rows: Sequence[RowT]) -> NextPage[int, RowT]:
    """The pages of a list that is complete; a position is an index."""

    async def page(start: int | None) -> Page[RowT, int]:
        begin = start or 0
        end = begin + CSV_PAGE
        return rows[begin:end], end if end < len(rows) else None

    return page
