"""An HTTP lane: sequential POSTs of NDJSON to /v1/ingest; the same body is repeated until it is answered."""

import asyncio
import time
from collections.abc import Sequence

import httpx

from bridge.backoff import Backoff
from simulator.endpoints import Api
from simulator.lane import Waiting
from simulator.ledger import ANSWERED, VIA_HTTP, LedgerWriter
from simulator.message import Item, Message
from simulator.tally import Tally

_COMMITTED = (201, 207, 422)
"""With each of these, every item of the body is committed to the history or to the rejects."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class UnexpectedAnswer(Exception):
    """The API answered with an error that a retry cannot change; the text is its response."""


class HttpLane:
    """Posts up to `most` readings at a time. A backlog is sent as separate lines, not as an array."""

    def __init__(
        self, client: httpx.AsyncClient, api: Api, ledger: LedgerWriter, tally: Tally, most: int, waiting: Waiting
    ) -> None:
        self._client, self._api = client, api
        self._ledger, self._tally = ledger, tally
        self._contact = tally.contact(f"API {api.url}")
        self._most = most
        self._waiting = waiting
        self._posting = False

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._posting

    @property
    def awaits_receipts(self) -> bool:
        return False  # the response is the receipt

    def offer(self, message: Message) -> None:
        self._waiting.put(message)

    @property
    def is_full(self) -> bool:
        return self._waiting.is_full

    async def room(self) -> None:
        await self._waiting.room()

    async def run(self) -> None:
        """Post until cancelled. Raises `UnexpectedAnswer`."""
        while True:
            await self._waiting.some()
            self._posting = True
            messages = self._take()
            first = self._ledger.items
            for message in messages:
                self._ledger.sent(message.device, message.items, VIA_HTTP)
            items = [item for message in messages for item in message.items]
            self._ledger.flush()
            self._tally.sent += len(items)
            await self._post(first, items)
            self._posting = False

    def _take(self) -> list[Message]:
        taken, weight = [], 0
        while self._waiting and weight < self._most:
            taken.append(self._waiting.take())
            weight += len(taken[-1].items)
        return taken

    async def _post(self, first: int, items: Sequence[Item]) -> None:
        body = b"\n".join(item.payload for item in items)
        started, backoff = time.monotonic(), Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not await self._answered(body, first, len(items), started):  # noqa: ASYNC110 - the other side is a server, not a task
            await asyncio.sleep(backoff.next())

    async def _answered(self, body: bytes, first: int, count: int, started: float) -> bool:
        """Post once. False when the result is unknown and the same body must be sent again."""
        headers = {**self._api.headers, "Content-Type": "application/x-ndjson"}
        try:
            response = await self._client.post(f"{self._api.url}/v1/ingest", content=body, headers=headers)
        except httpx.TransportError as error:
            self._tally.reconnects += 1
            self._contact.failed(error)
            return False
        self._contact.made()
        if response.status_code in (429, 500, 502, 503, 504):
            return False
        if response.status_code not in _COMMITTED:
            raise UnexpectedAnswer(f"{response.status_code} {response.text[:500]}")
        receipt = response.json()
        self._tally.answered += count
        self._tally.rejected += len(receipt["rejected"])
        self._tally.warnings += self._ledger.told(ANSWERED, first, count, receipt)
        self._ledger.flush()
        self._tally.answer_latency.add(time.monotonic() - started, count)
        return True
