"""POST /v1/ingest: ingest over HTTP. The answer is sent when the readings are durable, or says that this is unknown.

Where they go is the matter of a `Destination`: the database (`ingest_database`) or a stream (`ingest_stream`). The
endpoint is plain ASGI, because the work of a framework for a request costs as much as storing a reading.
"""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from api.auth import ApiKey
from api.body import MAX_BODY_BYTES, Pace, header, receive_body
from api.body_budget import BodyBudget
from api.database import Pool
from api.problems import Problem, unavailable
from api.seen import Device, unseen
from api.turns import Turns
from bridge.contract import KIND_OF, KINDS
from bridge.delivery import Item
from bridge.errors import ClocksDiffer, NotJson, Rejected, TooManyReadings
from bridge.formats import FORMATS, decode_body, of_content_type
from bridge.formats.document import loads
from bridge.formats.port import AcceptedTimes, Format
from bridge.reading import Flagged, Reading
from bridge.settings.api import ApiSettings
from bridge.store.verdict import refuse

_LARGE_BYTES = 256 * 1024  # some thousand readings
_MOST_DECODING = 100_000  # in memory they are bounded already, by the budget of bodies
_LONGEST_REST_S = 0.5
_JUDGED_AT_ONCE = 500
"""Readings of which it is decided whether a key may send them, between two iterations of the event loop."""


class Answer(NamedTuple):
    """A complete response, as JSON."""

    status: int
    body: bytes


class Body(NamedTuple):
    """What a request has sent."""

    items: Sequence[Item]
    size_bytes: int
    sender: str
    """The id of the key."""


class Destination(Protocol):
    """Where the readings of a body go."""

    def times(self) -> AcceptedTimes:
        """The times that are accepted now. Raises `ClocksDiffer`."""
        ...

    async def accept(self, body: Body) -> Answer:
        """Make its items durable. Raises `Problem`: 503 where it is not certain that they are."""
        ...


class IngestEndpoint:
    """Decodes the body of a request, hands it to the destination, and sends the answer."""

    def __init__(self, settings: ApiSettings, destination: Destination, budget: BodyBudget, pool: Pool) -> None:
        self._destination = destination
        self._pace = Pace(settings.http_body_timeout_s, settings.http_body_least_bytes_per_s)
        self._budget = budget
        self._pool = pool
        self._large = Turns(1, 1, _MOST_DECODING)
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
            answer = await self._destination.accept(Body(items, len(body), key.id))
        await _respond(send, answer)

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
            return decode_body(body, self._destination.times(), format_)
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
        judged: list[Item] = []
        for start in range(0, len(items), _JUDGED_AT_ONCE):
            if start:
                await asyncio.sleep(0)  # ten thousand rejects take a tenth of a second to make
            piece = zip(items[start : start + _JUDGED_AT_ONCE], named[start : start + _JUDGED_AT_ONCE], strict=True)
            judged += [
                _forbidden(item, key) if devices and foreign.issuperset(devices) else item for item, devices in piece
            ]
        return judged


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


async def _respond(send: Send, answer: Answer) -> None:
    """Send a complete response."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
