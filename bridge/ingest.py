"""The write loop: collect deliveries, write them in one transaction, then settle them in order.

Nothing is settled as stored before its commit. While the database is unavailable, the same batch is retried with
back-off; deliveries that are offered meanwhile wait, and `full` (back-pressure) makes sources stop reading.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from bridge.backoff import Backoff
from bridge.batch import Batch
from bridge.clock import Clock
from bridge.delivery import Delivery, Item, Settlement, Store
from bridge.errors import LeadershipLost, StoreUnavailable, Unreachable
from bridge.metrics import IngestMetrics
from bridge.reject_rate import RejectRate

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_UNREACHABLE_PAUSE_S = 0.4
"""The longest pause while no session can be opened: so soon after the database answers, the batch is written."""
_CHECK_EVERY_S = 5.0
_CHECK_CLOCKS_S = 0.25
"""The same, while the clocks differ."""


class Ingest:
    """The loop of one writer. Sources call `offer` and stop reading while it is `full`; `run` writes and settles.

    `give_up_after_s` is for clients that wait for a response: a batch that has not been written after this time is
    settled with `StoreUnavailable`. Without it, a batch is retried without limit.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        batch_size: int,
        batch_age_s: float,
        capacity: int,
        metrics: IngestMetrics,
        give_up_after_s: float | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._batch: Batch[Delivery] = Batch(batch_size, batch_age_s)
        self._capacity = capacity
        self._metrics = metrics
        self._give_up_after_s = give_up_after_s
        self._reject_rate = RejectRate()
        self._writing_weight = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._stopping = asyncio.Event()
        self._moved_at = time.monotonic()
        self._unavailable_since: float | None = None
        self._outage: StoreUnavailable | None = None
        self.on_room: Callable[[], None] = lambda: None
        """Called when there is capacity again after `full`."""

    @property
    def retrying(self) -> bool:
        """Whether the last attempt to write found the database unavailable; the same batch is retried."""
        return self._unavailable_since is not None

    @property
    def outage(self) -> StoreUnavailable | None:
        """Why the last attempt to write failed, while `retrying`."""
        return self._outage

    @property
    def capacity(self) -> int:
        """Weight of outstanding deliveries at which it is full."""
        return self._capacity

    @property
    def outstanding(self) -> int:
        """Weight of the deliveries that were offered and are not settled yet."""
        return self._batch.weight + self._writing_weight

    @property
    def full(self) -> bool:
        """Whether sources should stop reading; a single delivery may exceed the capacity."""
        return self.outstanding >= self._capacity

    @property
    def busy(self) -> bool:
        """Whether a whole batch waits to be written."""
        return self._batch.is_full

    @property
    def stalled_s(self) -> float:
        """Seconds for which deliveries have been outstanding without any batch being settled."""
        return time.monotonic() - self._moved_at if self.outstanding else 0.0

    def offer(self, delivery: Delivery) -> None:
        """Accept a delivery. It will be settled exactly once."""
        now = time.monotonic()
        outstanding = self._batch.weight + self._writing_weight
        if not outstanding:
            self._moved_at = now
            self._wake.set()
        if self._batch.add(delivery, delivery.weight, now):
            self._wake.set()
        if outstanding + delivery.weight >= self._capacity:
            self._room.clear()

    async def room(self) -> None:
        """Wait until the ingest is not full and the clocks agree."""
        await self._room.wait()
        while self._clock.problem is not None:  # noqa: ASYNC110  # no event tells that a clock was corrected
            await asyncio.sleep(_CHECK_CLOCKS_S)

    def now(self) -> datetime:
        """The time by which to judge readings. Raises `ClocksDiffer`."""
        return self._clock.now()

    def stop(self) -> None:
        """Let `run` write the outstanding deliveries and return. If the database is unavailable, do not wait for it."""
        self._stopping.set()
        self._wake.set()

    def discard(self) -> None:
        """Settle all waiting deliveries as not stored."""
        while waiting := self._batch.take():
            self._settle(waiting, StoreUnavailable("not written"))

    async def run(self) -> None:
        """Write batches until stopped. Raises `LeadershipLost` when another bridge took over, and leaves the rest."""
        while await self._due():
            deliveries = self._batch.take()
            if not deliveries:
                await self._check()
                continue
            self._writing_weight = sum(delivery.weight for delivery in deliveries)
            try:
                settlement = await self._write([item for delivery in deliveries for item in delivery.items])
            except BaseException:
                self._settle(deliveries, StoreUnavailable("the writer stopped"))
                raise
            self._settle(deliveries, settlement)
            if self._stopping.is_set() and isinstance(settlement, StoreUnavailable):
                self.discard()  # each further attempt may wait for a timeout, and the process must stop

    async def _due(self) -> bool:
        """Wait until a batch or, when idle, a check is due (True), or all is written after `stop` (False)."""
        while True:
            wait_s = self._batch.due_in(time.monotonic())
            if wait_s == 0.0 or (self._stopping.is_set() and wait_s is not None):
                return True
            if self._stopping.is_set():
                return False
            self._wake.clear()
            try:
                async with asyncio.timeout(self._check_after_s if wait_s is None else wait_s):
                    await self._wake.wait()
            except TimeoutError:
                if wait_s is None:
                    return True

    @property
    def _check_after_s(self) -> float:
        return _CHECK_EVERY_S if self._clock.problem is None else _CHECK_CLOCKS_S

    async def _check(self) -> None:
        """Write an empty batch: it verifies the connection, the lock and the clock."""
        try:
            await self._store.write([])
        except LeadershipLost:
            raise
        except StoreUnavailable as error:
            self._note_unavailable(error, 0)
        else:
            self._note_available()

    async def _write(self, items: Sequence[Item]) -> Settlement:
        started = time.monotonic()
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while True:
            try:
                outcomes = await self._store.write(items)
            except LeadershipLost:
                raise
            except StoreUnavailable as error:
                waited_s = time.monotonic() - started
                self._note_unavailable(error, len(items))
                if self._stopping.is_set() or (self._give_up_after_s is not None and waited_s >= self._give_up_after_s):
                    log.warning("batch abandoned", readings=len(items), reason=str(error))
                    return error
                longest_s = _UNREACHABLE_PAUSE_S if isinstance(error, Unreachable) else _LONGEST_PAUSE_S
                await self._pause(backoff.next(longest_s))
            else:
                self._note_available()
                rejected = self._metrics.written(outcomes, time.monotonic() - started)
                self._watch_rejects(len(outcomes), rejected)
                return outcomes

    def _note_unavailable(self, error: StoreUnavailable, readings: int) -> None:
        now = time.monotonic()
        self._outage = error
        if self._unavailable_since is None:
            self._unavailable_since = now
        self._metrics.unavailable()
        unavailable_s = round(now - self._unavailable_since, 1)
        log.warning("database unavailable", reason=str(error), readings=readings, unavailable_s=unavailable_s)

    def _note_available(self) -> None:
        if self._unavailable_since is not None:
            unavailable_s = round(time.monotonic() - self._unavailable_since, 1)
            self._unavailable_since = self._outage = None
            log.info("database available", unavailable_s=unavailable_s)

    def _watch_rejects(self, items: int, rejected: int) -> None:
        if self._reject_rate.alarms(items, rejected, time.monotonic()):
            self._metrics.reject_alarm()
            log.error("high reject rate", **self._reject_rate.figures)

    async def _pause(self, pause_s: float) -> None:
        """Pause; `stop` ends it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()

    def _settle(self, deliveries: Sequence[Delivery], settlement: Settlement) -> None:
        """Settle each delivery with its share of the outcomes, in order."""
        start = 0
        for delivery in deliveries:
            if isinstance(settlement, StoreUnavailable):
                delivery.settle(settlement)
            else:
                end = start + len(delivery.items)
                delivery.settle(settlement[start:end])
                start = end
        self._writing_weight = 0
        self._moved_at = time.monotonic()
        if not self.full and not self._room.is_set():
            self._room.set()
            self.on_room()
