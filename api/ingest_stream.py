"""Readings of HTTP into a stream: the answer says that they are durable, not what the bridge will decide about them.

A reading travels to the topic of its device, as if the device had published it. What names no device has no topic, so
it is refused in the answer and kept nowhere.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from api.ingest import Answer, Body
from api.ingest_database import why
from api.problems import Problem, unavailable
from bridge.contract import KINDS
from bridge.delivery import Item
from bridge.errors import Rejected
from bridge.formats.bounds import BYTES_PER_READING, excess
from bridge.formats.contract_json import encode, topic_of
from bridge.formats.document import loads
from bridge.formats.port import MAX_READINGS_PER_MESSAGE, AcceptedTimes
from bridge.reading import Flagged
from bridge.settings.api import ApiSettings
from bridge.streams.port import Message
from bridge.streams.publishing import Publisher

log = structlog.get_logger(__name__)

_MOST_BYTES = BYTES_PER_READING * MAX_READINGS_PER_MESSAGE  # of a message, beyond which it is rejected unread
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Parcel(NamedTuple):
    """What is made of a body."""

    messages: list[Message]
    refused: list[dict[str, int | str]]
    """Elements that cannot travel: index and reason."""


class IntoStream:
    """See `ingest.Destination`."""

    def __init__(self, settings: ApiSettings, publisher: Publisher) -> None:
        self._publisher = publisher
        self._timeout_s = settings.commit_timeout_s

    def times(self) -> AcceptedTimes:
        """All: the bridge that reads the stream decides."""
        return AcceptedTimes(datetime.now(UTC), _EARLIEST, _LATEST)

    async def accept(self, body: Body) -> Answer:
        """202, 207 when some elements were refused, or a problem with the receipt when all were."""
        items = body.items
        messages, refused = parcel_of(items)
        durable = len(items) - len(refused)
        if not messages:
            are_foreign = all(isinstance(item, Rejected) and item.reason == "forbidden" for item in items)
            raise Problem(403 if are_foreign else 422, why(refused), durable=durable, rejected=refused)
        await self._published(messages)
        receipt = json.dumps({"durable": durable, "rejected": refused}, separators=(",", ":"))
        return Answer(207 if refused else 202, receipt.encode())

    async def _published(self, messages: Sequence[Message]) -> None:
        """Publish and wait for the answers of the stream. Raises 503 when one is missing or a refusal."""
        if (reason := self._publisher.not_ready) is not None:
            raise _not_durable(reason)
        awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        missing = len(messages)

        def done(problem: str | None) -> None:
            nonlocal missing
            missing -= 1
            if awaited.done():
                return  # refused already, or the request has timed out
            if problem is not None:
                awaited.set_exception(_not_durable(problem))
            elif not missing:
                awaited.set_result(None)

        for message in messages:
            self._publisher.publish(message, done)
        try:
            async with asyncio.timeout(self._timeout_s):
                await awaited
        except TimeoutError:
            raise _not_durable("no answer in time") from None


def _not_durable(reason: str) -> Problem:
    log.warning("not known to be in the stream", reason=reason)
    return unavailable("the stream is unavailable or full; send the same readings again, nothing is stored twice")


def parcel_of(items: Sequence[Item]) -> Parcel:
    """The messages of a body; those of a device are in the order of its readings."""
    of_topic: dict[str, list[bytes]] = {}
    rejects: list[Message] = []
    refused: list[dict[str, int | str]] = []
    for index, item in enumerate(items):
        if not isinstance(item, Rejected):
            reading = item.reading if isinstance(item, Flagged) else item
            of_topic.setdefault(topic_of(reading), []).append(encode(reading))
        elif (topic := _topic_of_reject(item)) is not None and len(item.payload) <= _MOST_BYTES:
            rejects.append(Message(topic, item.payload))
        else:
            refused.append({"index": index, "reason": str(item)})
    packed = [Message(topic, payload) for topic, texts in of_topic.items() for payload in _packed(texts)]
    return Parcel(packed + rejects, refused)


def _packed(texts: Iterable[bytes]) -> Iterator[bytes]:
    """The elements as messages, each within the limits of one."""
    own: list[bytes] = []
    size = 2
    for text in texts:
        if own and (size + len(text) + 1 > _MOST_BYTES or len(own) == MAX_READINGS_PER_MESSAGE):
            yield from _joined(own)
            own, size = [], 2
        own.append(text)
        size += len(text) + 1
    yield from _joined(own)


def _joined(texts: Sequence[bytes]) -> Sequence[bytes]:
    """One array; or each alone, where together they have more values or lists than a message may have."""
    array = b"[" + b",".join(texts) + b"]"
    return texts if len(texts) == 1 or excess(array, MAX_READINGS_PER_MESSAGE) else [array]


def _topic_of_reject(rejected: Rejected) -> str | None:
    """The topic of the one device that it names; None if there is none, or if the key may not report it."""
    if rejected.device is None or rejected.reason == "forbidden":
        return None
    try:
        fields = loads(rejected.payload)
    except ValueError:
        return None
    named = [kind for kind in KINDS if isinstance(fields, dict) and fields.get(kind.id_field) == rejected.device]
    return named[0].topic(rejected.device) if len(named) == 1 else None
