"""A whole list as CSV, read in pages while it is sent: a slow client occupies no memory and no connection."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.csv_format import Cell, csv_text
from api.protocol import IS_GONE
from api.replicas.reading import ReplicaLost

CSV_PAGE = 1_000
"""Rows that are read at a time."""
_PIECE = 100
"""Rows that are sent at a time."""

RowT = TypeVar("RowT")
PositionT = TypeVar("PositionT")
Page = tuple[Sequence[RowT], PositionT | None]
"""Rows, and the position after them; None when there are no more."""
NextPage = Callable[[PositionT | None], Awaitable[Page[RowT, PositionT]]]
"""The page after a position; None: the first."""


class _Download(Response):
    """Sends pieces until the client has gone.

    Nothing is cancelled, unlike in the framework's response: an exception would keep the rows until a collection.
    """

    def __init__(self, pieces: AsyncGenerator[str, None], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers, media_type="text/csv")
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        is_gone: Callable[[], bool] = scope["state"][IS_GONE]
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self._pieces) as pieces:
            async for text in pieces:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                if is_gone():
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def csv_stream(
    name: str,
    header: Sequence[str],
    cells: Callable[[RowT], Sequence[Cell]],
    next_page: NextPage[PositionT, RowT],
    start: PositionT | None = None,
) -> Response:
    """The response, to be saved as `name`.csv.

    The first page is read before it begins, so that an unavailable database still results in a 503; an error in a later
    page closes the connection before the end of the response. Every row that exists throughout is sent exactly once; a
    row inserted or deleted meanwhile may be sent or not.
    """
    rows, position = await next_page(start)

    async def chunks() -> AsyncGenerator[str, None]:
        page, following = rows, position
        yield csv_text([header])
        async for text in _texts(page, cells):
            yield text
        while following is not None:
            page, following = await _after(following, next_page)
            async for text in _texts(page, cells):
                yield text

    headers = {"Vary": "Accept", "Content-Disposition": f'attachment; filename="{name}.csv"'}
    return _Download(chunks(), headers)


async def _after(position: PositionT, next_page: NextPage[PositionT, RowT]) -> Page[RowT, PositionT]:
    """The page after a position; if a replica fails, that of the primary, which has every row of the replica."""
    try:
        return await next_page(position)
    except ReplicaLost:
        return await next_page(position)


async def _texts(page: Sequence[RowT], cells: Callable[[RowT], Sequence[Cell]]) -> AsyncIterator[str]:
    """The rows of a page as text, made in pieces between which others are served: a row may have 16 KiB."""
    for begin in range(0, len(page), _PIECE):
        yield csv_text(map(cells, page[begin : begin + _PIECE]))
        await asyncio.sleep(0)


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
