"""Readings of HTTP into the database: the answer is the receipt, after the commit.

Concurrent requests share one transaction.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from api.ingest import Answer, Body
from api.problems import Problem, outage_text, unavailable
from api.turns import Turns
from bridge.delivery import Item, Outcome, Receipt, Settlement, delivery
from bridge.errors import Rejected, StoreUnavailable
from bridge.formats.port import AcceptedTimes
from bridge.ingest import Ingest
from bridge.settings.api import ApiSettings

log = structlog.get_logger(__name__)

_NO_COMMIT = StoreUnavailable("no commit in time")
_QUOTA_PAUSE_S = 60
_LIGHT_ITEMS, _LIGHT_REJECTS = 1_000, 100
_PIECE_ITEMS = 500
"""Of a heavy body: so many rejects take a tenth of a second to write, and readings of others wait for as long."""
_MOST_PIECES_WAITING = 100_000  # in memory they are bounded already, by the budget of bodies


class IntoDatabase:
    """See `ingest.Destination`."""

    def __init__(self, settings: ApiSettings, ingest: Ingest) -> None:
        self._ingest = ingest
        self._window = settings.accepted_window
        self._commit_timeout_s = settings.commit_timeout_s
        self._pieces = Turns(1, 1, _MOST_PIECES_WAITING)

    def times(self) -> AcceptedTimes:
        """See `ingest.Destination`."""
        return self._window.at(self._ingest.now())

    async def accept(self, body: Body) -> Answer:
        """201, 207, or a problem with the receipt when every reading was rejected: 429 if one may be stored later."""
        outcomes = await self._stored(body)
        receipt = Receipt.of(outcomes)
        if len(receipt.rejected) == len(outcomes):
            reasons = {o.reason for o in outcomes if isinstance(o, Rejected)}
            if "quota_exceeded" in reasons:
                raise Problem(429, why(receipt.rejected), {"Retry-After": f"{_QUOTA_PAUSE_S}"}, **receipt.members())
            raise Problem(403 if reasons == {"forbidden"} else 422, why(receipt.rejected), **receipt.members())
        return Answer(207 if receipt.rejected else 201, receipt.encode())

    async def _stored(self, body: Body) -> Sequence[Outcome]:
        """Commit a heavy body in pieces, in turns of the keys: ten thousand rejects take seconds to write."""
        items, size_bytes, sender = body
        rejects = sum(type(item) is Rejected for item in items)
        if len(items) <= _LIGHT_ITEMS and rejects <= _LIGHT_REJECTS:
            return await self._commit(items, size_bytes)
        outcomes: list[Outcome] = []
        for start in range(0, len(items), _PIECE_ITEMS):
            piece = items[start : start + _PIECE_ITEMS]
            async with self._pieces.turn(sender):
                outcomes += await self._commit(piece, size_bytes * len(piece) // len(items))
        return outcomes

    async def _commit(self, items: Sequence[Item], size_bytes: int) -> Sequence[Outcome]:
        """Offer the items and wait for their outcomes. Raises 503 when the result is unknown or the queue is full."""
        if self._ingest.full:
            raise unavailable("too many readings are waiting for their commit", 1)
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[Settlement] = loop.create_future()

        def settle(settlement: Settlement) -> None:
            if not settled.done():  # the client may have disconnected, or the request timed out
                settled.set_result(settlement)

        self._ingest.offer(delivery(items, settle, size_bytes))
        timer = loop.call_later(self._commit_timeout_s, lambda: settle(self._ingest.outage or _NO_COMMIT))
        try:
            settlement = await settled
        finally:
            timer.cancel()
        if isinstance(settlement, StoreUnavailable):
            log.warning("batch not stored or result unknown", readings=len(items), reason=str(settlement))
            raise unavailable(
                f"{outage_text(settlement)}; send the same readings again, nothing is stored twice"
            ) from settlement
        return settlement


def why(rejected: Sequence[Mapping[str, int | str]]) -> str:
    """The detail of a problem for a body of which every reading was rejected."""
    first = str(rejected[0]["reason"])
    return first if len(rejected) == 1 else f"every reading was rejected; first reason: {first}"
