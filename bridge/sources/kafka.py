"""The bridge's membership in a Kafka consumer group: its bridges share the partitions, and so the devices.

The offset of a partition is committed to Kafka after the database has committed everything before it. On a revocation
the bridge waits a moment for what it has offered, commits its offset, and gives the partition up; what it did not
commit, the next owner reads again, and the key of the history absorbs it.
"""

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
from prometheus_client import CollectorRegistry

from bridge.backoff import Backoff
from bridge.delivery import Item, Receipt, Settlement, delivery
from bridge.errors import ClocksDiffer, StoreUnavailable
from bridge.formats import decode_message
from bridge.settings.kafka import KafkaSettings
from bridge.sources.kafka_metrics import KafkaMetrics
from bridge.sources.kafka_offsets import Offsets, Partition
from bridge.sources.port import Intake, Open, SourceKind
from bridge.streams.kafka_client import Consumer, KafkaUnavailable, Producer, Start, require
from bridge.streams.kafka_setup import cluster_of, set_up

if TYPE_CHECKING:
    from confluent_kafka import Message

log = structlog.get_logger(__name__)
T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_READ_S = 0.1
_COMMIT_EVERY_S = 0.1
_COMMIT_AGAIN_S = 1.0
_FULL_S = 1.0
"""So long a full intake only delays the next read; then the partitions are paused, which discards what was fetched."""
_RELEASE_S = 3.0
"""How long a revocation waits for the commit of what was offered."""
_PROBE_EVERY_S = 2.0


class Arrival:
    """Messages that arrived together. `items` is flat; only messages that ask for a receipt have a range of it."""

    __slots__ = ("ends", "items", "messages", "requests", "size_bytes")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.messages = 0
        self.size_bytes = 0
        self.ends: dict[Partition, int] = {}
        """The offset behind the last message of each partition."""
        self.requests: list[tuple[bytes | None, bytes, int, int]] = []
        """The key and the token of a message that asks for a receipt, and the range of its items."""


class KafkaSource:
    """Keeps one membership, offers what arrives, and commits the offsets of what is stored."""

    def __init__(self, settings: KafkaSettings, intake: Intake, metrics: KafkaMetrics) -> None:
        self._settings = settings
        self._window = settings.accepted_window
        self._intake = intake
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "kafka")  # the consumer's: its calls follow each other
        self._consumer: Consumer | None = None
        self._offsets = Offsets()
        self._receipts: Producer | None = None
        self._room = asyncio.Event()
        self._moved = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._committed_at = self._probed_at = 0.0
        self._joined = self._stopping = False
        self._away: str | None = None
        self._failed: str | None = None
        intake.on_room = self._room.set

    @property
    def not_ready(self) -> str | None:
        """See `port.Source`."""
        if self._away is not None:
            return "not connected to the Kafka cluster"
        return None if self._joined else "not a member of the consumer group yet"

    async def run(self) -> None:
        """Join the group, and join again with back-off and jitter, until cancelled. Raises `Misconfigured`."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not self._stopping:
            try:
                await self._join()
                reason = await self._read(backoff)
            except KafkaUnavailable as error:
                reason = str(error)
            finally:
                if not self._stopping:
                    self._fail("reading ended")
                    await self._leave()
            if not self._stopping:
                pause_s = backoff.next()
                log.warning("reading from Kafka ended", reason=reason, again_in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s)

    async def _call(self, function: Callable[[], T]) -> T:
        """Call what blocks in the consumer's thread."""
        return await self._loop.run_in_executor(self._thread, function)

    async def _use(self, function: Callable[[Consumer], T]) -> T:
        """The same for a method of the consumer, unless this bridge has left the group."""
        if (consumer := self._consumer) is None:
            raise KafkaUnavailable("left the group")
        return await self._call(partial(function, consumer))

    async def _join(self) -> None:
        await self._intake.room()
        settings = self._settings
        await self._call(partial(set_up, settings))
        self._failed, self._joined, self._offsets = None, False, Offsets()
        self._receipts = Producer(cluster_of(settings)) if settings.kafka_receipts else None
        timeout_ms = settings.kafka_session_timeout_ms
        group, topic = settings.kafka_group, settings.kafka_topic
        self._consumer = await self._call(lambda: Consumer(cluster_of(settings), group, topic, timeout_ms, self))
        self._away = None
        self._metrics.connects.inc()
        self._metrics.connected.set(1)

    async def _read(self, backoff: Backoff) -> str:
        """Read until it fails or is stopped. Returns the reason."""
        while self._failed is None and not self._stopping:
            await self._wait_for_room()
            messages = await self._use(lambda consumer: consumer.read(_READ_S))
            if messages:
                backoff.reset()
                self._here()
                self._received(messages)
            await self._commit()
            await self._watch()
        return self._failed or "stopped"

    async def _wait_for_room(self) -> None:
        """Wait while the intake is full, but not for long: the group expects its members to read."""
        if not self._intake.full:
            await self._use(Consumer.resume)
            return
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FULL_S):
                await self._room.wait()
        await self._use(Consumer.pause if self._intake.full else Consumer.resume)

    async def _commit(self) -> None:
        now = time.monotonic()
        if now - self._committed_at >= _COMMIT_EVERY_S and (offsets := self._offsets.to_commit()):
            self._committed_at = now
            await self._use(lambda consumer: consumer.commit(offsets))

    async def _watch(self) -> None:
        """Measure the lag, look for a cluster that was away, and fail when messages wait without a commit."""
        if self._receipts is not None:
            self._receipts.serve()
        ends = await self._use(Consumer.ends)
        owned = self._offsets.owned.values()
        self._metrics.lag.set(sum(max(ends.get(p.number, 0) - p.settled, 0) for p in owned))
        if self._away is not None and time.monotonic() - self._probed_at > _PROBE_EVERY_S:
            self._probed_at = time.monotonic()
            with contextlib.suppress(KafkaUnavailable):
                await self._use(Consumer.answers)
                self._here()
        if self._intake.stalled_s > self._settings.stall_timeout_s and not self._intake.retrying:
            self._fail(f"no commit for {self._intake.stalled_s:.0f} s")

    def _here(self) -> None:
        self._away = None
        self._metrics.connected.set(1)

    def _fail(self, reason: str) -> None:
        """Give the membership up; what is settled from now on is not committed."""
        if self._failed is None:
            self._failed = reason
            self._moved.set()

    async def _leave(self) -> None:
        """Close the consumer, even if the caller is cancelled meanwhile."""
        consumer, self._consumer = self._consumer, None
        self._joined = False
        self._metrics.connected.set(0)
        if consumer is not None:
            await asyncio.shield(self._loop.run_in_executor(self._thread, consumer.close))
        self._offsets.revoke(list(self._offsets.owned))
        self._metrics.partitions.set(0)
        self._metrics.lag.set(0)

    # -- messages

    def _received(self, messages: "Sequence[Message]") -> None:
        try:
            times = self._window.at(self._intake.now())
        except ClocksDiffer as error:
            self._fail(str(error))
            return
        if self._stopping:
            return  # not committed, so they are read again
        arrival = Arrival()
        for message in messages:
            owner = self._offsets.owned.get(message.partition() or 0)
            if owner is None:
                continue  # revoked while it was read: its next owner reads it
            owner.offered = arrival.ends[owner] = (message.offset() or 0) + 1
            payload = message.value() or b""
            key, headers = message.key(), message.headers()
            topic = key.decode(errors="replace") if key else ""
            content_type = None
            start = len(arrival.items)
            token = None
            if headers:
                content_type, token = _asked(headers)
            arrival.items += decode_message(topic, payload, times, content_type)
            if token is not None:
                arrival.requests.append((key, token, start, len(arrival.items)))
            arrival.messages += 1
            arrival.size_bytes += len(payload)
        if arrival.messages:
            self._hand_over(arrival)

    def _hand_over(self, arrival: Arrival) -> None:
        """Offer the messages as a delivery."""
        self._metrics.messages.inc(arrival.messages)
        self._intake.offer(delivery(arrival.items, partial(self._settle, arrival), arrival.size_bytes))

    def _settle(self, arrival: Arrival, settlement: Settlement) -> None:
        """After the commit, note the offsets and answer requests for receipts."""
        if isinstance(settlement, StoreUnavailable):
            self._fail("not stored")  # so that the messages are read again
        elif self._failed is not None:
            self._metrics.stale_acks.inc(arrival.messages)
        else:
            for owner, end in arrival.ends.items():
                owner.settled = end
            is_owned = all(owner.owned for owner in arrival.ends)
            (self._metrics.acks if is_owned else self._metrics.stale_acks).inc(arrival.messages)
            for key, token, start, stop in arrival.requests:
                self._publish_receipt(key, token, Receipt.of(settlement[start:stop]))
        self._moved.set()

    def _publish_receipt(self, key: bytes | None, token: bytes, receipt: Receipt) -> None:
        topic = self._settings.kafka_receipts
        if self._receipts is None or topic is None:
            return
        with contextlib.suppress(BufferError, KafkaUnavailable):  # receipts are no part of the promise
            self._receipts.publish(topic, key, receipt.encode(), [("receipt", token)], lambda _: None)
            self._metrics.receipts.inc()

    # -- the group, in the consumer's thread

    def assigned(self, starts: Mapping[int, Start]) -> None:
        """See `kafka_client.Owner`."""
        self._loop.call_soon_threadsafe(self._assigned, starts)

    def _assigned(self, starts: Mapping[int, Start]) -> None:
        self._offsets.assign({number: start.offset for number, start in starts.items()})
        self._joined = True
        self._metrics.rebalances.inc()
        self._metrics.partitions.set(len(self._offsets.owned))
        self._here()
        log.info("partitions assigned", partitions=sorted(starts), of_all=len(self._offsets.owned))
        if lost := sum(start.lost for start in starts.values()):
            self._metrics.lost.inc(lost)
            log.error("the topic's retention has deleted records that were not stored", records=lost)

    def released(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """See `kafka_client.Owner`."""
        releasing = asyncio.run_coroutine_threadsafe(self._release(partitions), self._loop)
        try:
            return releasing.result(_RELEASE_S + 1.0)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            return {}

    async def _release(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Wait a moment for the messages of these partitions to be settled; the offsets to commit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_S):
                while self._failed is None and self._offsets.outstanding(partitions) and not self._intake.retrying:
                    self._moved.clear()
                    await self._moved.wait()
        offsets = {} if self._failed is not None else self._offsets.to_commit(partitions)
        self._revoked(partitions)
        return offsets

    def lost(self, partitions: Sequence[int]) -> None:
        """See `kafka_client.Owner`."""
        self._loop.call_soon_threadsafe(self._revoked, partitions)

    def _revoked(self, partitions: Sequence[int]) -> None:
        self._offsets.revoke(partitions)
        self._metrics.rebalances.inc()
        self._metrics.partitions.set(len(self._offsets.owned))
        log.info("partitions revoked", partitions=sorted(partitions), of_all=len(self._offsets.owned))

    def refused(self, reason: str) -> None:
        """See `kafka_client.Owner`. The offsets are repeated by the next commit, or read again by the next owner."""
        self._loop.call_soon_threadsafe(self._refused, reason)

    def _refused(self, reason: str) -> None:
        self._metrics.commits_failed.inc()
        self._offsets.commit_again()
        self._committed_at = time.monotonic() + _COMMIT_AGAIN_S
        log.warning("offsets not committed", reason=reason)

    def away(self, reason: str) -> None:
        """See `kafka_client.Owner`."""
        self._loop.call_soon_threadsafe(self._gone, reason)

    def _gone(self, reason: str) -> None:
        if self._away is None and self._consumer is not None:
            log.warning("Kafka unavailable", reason=reason)
            self._away = reason
            self._metrics.connected.set(0)

    # -- the end

    def stop_reading(self) -> None:
        """Offer nothing more. Earlier messages are still committed."""
        self._stopping = True
        self._room.set()

    async def close(self) -> None:
        """Commit the offsets of what was stored, and leave the group, so that the others take over at once."""
        await self._leave()
        if self._receipts is not None:
            with contextlib.suppress(KafkaUnavailable):  # receipts are no part of the promise
                await self._call(partial(self._receipts.flush, _RELEASE_S))

    def abort(self, reason: str) -> None:
        """Leave without a commit."""
        self._stopping = True
        self._fail(reason)
        self._leaving = asyncio.create_task(self._leave())


def _asked(headers: object) -> tuple[str | None, bytes | None]:
    """The content type, and the token for a receipt, of a record."""
    found = dict(headers) if isinstance(headers, list) else {}
    content_type, token = found.get("content-type"), found.get("receipt")
    return (content_type.decode(errors="replace") if isinstance(content_type, bytes) else None), token


def _open(settings: KafkaSettings, registry: CollectorRegistry) -> Open:
    require()
    metrics = KafkaMetrics(registry)
    return lambda intake: KafkaSource(settings, intake, metrics)


SOURCE = SourceKind(KafkaSettings, _open, shares=True)
