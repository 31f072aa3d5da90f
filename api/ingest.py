"""POST /v1/ingest: ingest over HTTP. The response is sent after the commit, or says that the result is unknown.

Concurrent requests share one transaction. The endpoint is plain ASGI, because the work of a framework for a request
costs as much as storing a reading.
"""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog
from starlette.types import Receive, Scope, Send

from api.auth import ApiKey
from api.body import MAX_BODY_BYTES, Pace, header, receive_body
from api.body_budget import BodyBudget
from api.database import Pool
from api.problems import Problem, outage_text, unavailable
from api.seen import Device, unseen
from api.turns import Turns
from bridge.contract import KIND_OF, KINDS
from bridge.delivery import Item, Outcome, Receipt, Settlement, delivery
from bridge.errors import ClocksDiffer, NotJson, Rejected, StoreUnavailable, TooManyReadings
from bridge.formats import FORMATS, decode_body, of_content_type
from bridge.formats.document import loads
from bridge.formats.port import Format
from bridge.ingest import Ingest
from bridge.reading import Flagged, Reading
from bridge.settings.api import ApiSettings
from bridge.store.verdict import refuse

log = structlog.get_logger(__name__)

_NO_COMMIT = StoreUnavailable("no commit in time")
_QUOTA_PAUSE_S = 60
_LARGE_BYTES = 256 * 1024  # some thousand readings
_MOST_DECODING = 100_000  # in memory they are bounded already, by the budget of bodies
_LONGEST_REST_S = 0.5
_LIGHT_ITEMS, _LIGHT_REJECTS = 1_000, 100
_PIECE_ITEMS = 500
"""Of a heavy body: so many rejects take a tenth of a second to write, and readings of others wait for as long."""
_MOST_PIECES_WAITING = 100_000  # see `_MOST_DECODING`


class IngestEndpoint:
    """Decodes and stores the body of a request and answers with the receipt."""

    def __init__(self, settings: ApiSettings, ingest: Ingest, budget: BodyBudget, pool: Pool) -> None:
        self._ingest = ingest
        self._window = settings.accepted_window
        self._commit_timeout_s = settings.commit_timeout_s
        self._pace = Pace(settings.http_body_timeout_s, settings.http_body_least_bytes_per_s)
        self._budget = budget
        self._pool = pool
        self._large = Turns(1, 1, _MOST_DECODING)
        self._pieces = Turns(1, 1, _MOST_PIECES_WAITING)
        # One, because the allocator keeps the freed memory of each thread.
        self._thread = ThreadPoolExecutor(1, "decode")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one POST. Raises `Problem` or `Disconnected`."""
        key: ApiKey = scope["state"]["key"]
        format_ = _format(header(scope, b"content-type"))
        with self._budget.charge(key.id) as charge:
            body = await receive_body(scope, receive, MAX_BODY_BYTES, self._pace, charge)
            items = _sent_by(key, await self._decoded(body, format_, key))
            if key.sight.is_limited:
                items = await self._without_foreign(items, key)
            outcomes = await self._stored(items, len(body), key)
        await _answer(outcomes, send)

    async def _decoded(self, body: bytes, format_: Format, key: ApiKey) -> Sequence[Item]:
        """Decode a large body in a thread, one at a time, in turns of the keys: other requests must be served.

        The parser holds the interpreter, so afterwards others have as long before the next one.
        """
        if len(body) <= _LARGE_BYTES:
            return self._decode(body, format_)
        async with self._large.turn(key.id):
            began = time.monotonic()
            try:
                decoding = asyncio.get_running_loop().run_in_executor(self._thread, self._decode, body, format_)
                return await decoding
            finally:
                await asyncio.sleep(min(_LONGEST_REST_S, time.monotonic() - began))

    def _decode(self, body: bytes, format_: Format) -> Sequence[Item]:
        try:
            return decode_body(body, self._window.at(self._ingest.now()), format_)
        except NotJson as error:
            raise Problem(400, f"not JSON: {error}") from None
        except TooManyReadings as error:
            raise Problem(413, str(error)) from None
        except ClocksDiffer as error:
            raise unavailable(f"{error}; send the same readings again") from None

    async def _without_foreign(self, items: Sequence[Item], key: ApiKey) -> list[Item]:
        """The items, with rejects instead of those whose device the key does not see. A key with sites asks the
        register once for all of them."""
        named = [_devices(item) for item in items]
        foreign = await unseen(self._pool, key.sight, {device for devices in named for device in devices})
        return [
            _forbidden(item, key) if devices and foreign.issuperset(devices) else item
            for item, devices in zip(items, named, strict=True)
        ]

    async def _stored(self, items: Sequence[Item], size_bytes: int, key: ApiKey) -> Sequence[Outcome]:
        """Commit a heavy body in pieces, in turns of the keys: ten thousand rejects take seconds to write."""
        rejects = sum(type(item) is Rejected for item in items)
        if len(items) <= _LIGHT_ITEMS and rejects <= _LIGHT_REJECTS:
            return await self._commit(items, size_bytes)
        outcomes: list[Outcome] = []
        for start in range(0, len(items), _PIECE_ITEMS):
            piece = items[start : start + _PIECE_ITEMS]
            async with self._pieces.turn(key.id):
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


def _format(content_type: str) -> Format:
    """The format of a body. Raises 415 for an unsupported content type."""
    format_ = of_content_type(content_type)
    if format_ is None:
        accepted = ", ".join(known.content_types[0] for known in FORMATS)
        raise Problem(
            415, f"Content-Type: {content_type} is not supported; use {accepted} in UTF-8", {"Accept": accepted}
        )
    return format_


def _sent_by(key: ApiKey, items: Sequence[Item]) -> Sequence[Item]:
    """The items, with the key in those that are rejected."""
    if not any(type(item) is Rejected for item in items):
        return items
    return [dataclasses.replace(item, sender=key.id) if isinstance(item, Rejected) else item for item in items]


def _devices(item: Item) -> list[Device]:
    """The device of a reading; of a reject each device that it may be of, if it names any."""
    if isinstance(item, Rejected):
        device = item.device
        return [] if device is None else [(kind, device) for kind in _kinds(item.payload)]
    reading = _reading(item)
    return [(reading.kind.name, reading.device)]


def _forbidden(item: Item, key: ApiKey) -> Rejected:
    """The reject of a reading that the key is not allowed to send."""
    if isinstance(item, Rejected):
        return dataclasses.replace(item, reason="forbidden", detail=_detail(key, item.device))
    reading = _reading(item)
    refused = refuse(reading, "forbidden", _detail(key, f"{reading.kind.name} {reading.device}"), "http")
    return dataclasses.replace(refused, sender=key.id)


def _reading(item: Reading | Flagged) -> Reading:
    return item.reading if isinstance(item, Flagged) else item


def _kinds(payload: bytes) -> Sequence[str]:
    """The kinds that a rejected reading may belong to: those whose id it names, else all."""
    try:
        fields = loads(payload)
    except ValueError:
        fields = None
    named = [kind.name for kind in KINDS if isinstance(fields, dict) and kind.id_field in fields]
    return named or list(KIND_OF)


def _detail(key: ApiKey, device: str | None) -> str:
    return f"key {key.id} is not allowed to send readings of {device}"


async def _answer(outcomes: Sequence[Outcome], send: Send) -> None:
    """201, 207, or a problem with the receipt when every reading was rejected: 429 if one may be stored later."""
    receipt = Receipt.of(outcomes)
    if len(receipt.rejected) == len(outcomes):
        reasons = {o.reason for o in outcomes if isinstance(o, Rejected)}
        if "quota_exceeded" in reasons:
            raise Problem(429, _why(receipt), {"Retry-After": f"{_QUOTA_PAUSE_S}"}, **receipt.members())
        raise Problem(403 if reasons == {"forbidden"} else 422, _why(receipt), **receipt.members())
    await _respond(send, 207 if receipt.rejected else 201, receipt.encode(), b"application/json")


def _why(receipt: Receipt) -> str:
    first = str(receipt.rejected[0]["reason"])
    return first if len(receipt.rejected) == 1 else f"every reading was rejected; first reason: {first}"


async def _respond(send: Send, status: int, body: bytes, media_type: bytes) -> None:
    """Send a complete response."""
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
