"""The ingest loop: order of settling, retries, stop and capacity, with a small scripted store."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from bridge import ingest as ingest_module
from bridge.clock import Clock
from bridge.delivery import Delivery, Item, Kept, Outcome, Settlement
from bridge.errors import LeadershipLost, StoreUnavailable
from bridge.ingest import Ingest
from bridge.metrics import IngestMetrics
from tests.readings import minutes
from tests.until import until

pytestmark = pytest.mark.anyio

READINGS = list(minutes("EV_1", 100))


class Replay:
    """A store that returns its scripted results in order, and then success."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.writes: list[list[Item]] = []
        self.open = asyncio.Event()
        """While clear, writes hang."""
        self.open.set()

    async def write(self, items: Sequence[Item]) -> list[Outcome]:
        self.writes.append(list(items))
        await self.open.wait()
        if self.answers:
            raise self.answers.pop(0)
        return [Kept.STORED] * len(items)


class Settled(list[tuple[int, Settlement]]):
    """The settlements, in order."""

    def delivery(self, number: int, count: int = 1) -> Delivery:
        items = READINGS[number : number + count]
        return Delivery(items, lambda settlement: self.append((number, settlement)), count)

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self]


def loop_over(store: Replay, **others: float) -> Ingest:
    settings = {"batch_size": 10, "batch_age_s": 0.0, "capacity": 50, **others}
    clock = Clock(30)
    clock.compare(datetime.now(UTC), time.monotonic())
    return Ingest(store, clock, metrics=IngestMetrics(CollectorRegistry()), **settings)  # type: ignore[arg-type]


@asynccontextmanager
async def running(ingest: Ingest) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(ingest.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_deliveries_are_settled_once_in_order_with_their_own_outcomes() -> None:
    store, settled = Replay(), Settled()
    ingest = loop_over(store)
    for number in range(25):
        ingest.offer(settled.delivery(number, 1 + number % 3))
    async with running(ingest):
        await until(lambda: len(settled) == 25)
    assert settled.numbers == list(range(25))
    assert [len(s) for _, s in settled if not isinstance(s, StoreUnavailable)] == [1 + n % 3 for n in range(25)]
    assert all(len(items) <= 10 for items in store.writes)
    assert ingest.outstanding == 0


async def test_batch_is_written_when_it_reaches_its_maximum_age() -> None:
    store, settled = Replay(), Settled()
    ingest = loop_over(store, batch_age_s=0.05)
    async with running(ingest):
        ingest.offer(settled.delivery(0))
        await until(lambda: ingest.outstanding == 1)
        ingest.offer(settled.delivery(1))
        await until(lambda: len(settled) == 2)
    assert [len(items) for items in store.writes] == [2]


async def test_full_batch_does_not_wait_for_its_age() -> None:
    settled = Settled()
    ingest = loop_over(Replay(), batch_age_s=3600)
    async with running(ingest):
        for number in range(10):
            ingest.offer(settled.delivery(number))
        await until(lambda: len(settled) == 10)


async def test_same_batch_is_tried_until_it_succeeds_and_nothing_is_settled_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest_module, "_FIRST_PAUSE_S", 0.001)
    store, settled = Replay(*[StoreUnavailable("away")] * 5), Settled()
    ingest = loop_over(store)
    retried: list[bool] = []
    write = store.write

    async def observed(items: Sequence[Item]) -> list[Outcome]:
        retried.append(ingest.retrying)
        assert not settled
        return await write(items)

    store.write = observed  # type: ignore[method-assign]
    ingest.offer(settled.delivery(0, 3))
    async with running(ingest):
        await until(lambda: settled)
    assert settled == [(0, [Kept.STORED] * 3)]
    assert store.writes == [READINGS[:3]] * 6
    assert retried == [False, True, True, True, True, True]
    assert not ingest.retrying


async def test_batch_is_given_up_after_its_time_and_the_next_one_goes_on() -> None:
    store, settled = Replay(StoreUnavailable("away")), Settled()
    ingest = loop_over(store, give_up_after_s=0.0)
    ingest.offer(settled.delivery(0, 10))
    ingest.offer(settled.delivery(10, 10))
    async with running(ingest):
        await until(lambda: len(settled) == 2)
    assert isinstance(settled[0][1], StoreUnavailable)
    assert settled[1] == (10, [Kept.STORED] * 10)


async def test_stop_writes_what_waits_without_its_age_and_returns() -> None:
    store, settled = Replay(), Settled()
    ingest = loop_over(store, batch_age_s=3600)
    async with running(ingest) as task:
        for number in range(0, 24, 3):
            ingest.offer(settled.delivery(number, 3))
        await until(lambda: store.writes)
        ingest.stop()
        await asyncio.wait_for(task, 20)
    assert settled.numbers == list(range(0, 24, 3))
    assert not any(isinstance(settlement, StoreUnavailable) for _, settlement in settled)


async def test_stop_without_a_store_tries_once_and_settles_everything_as_not_stored() -> None:
    store, settled = Replay(*[StoreUnavailable("away")] * 100), Settled()
    ingest = loop_over(store)
    for number in range(0, 50, 5):
        ingest.offer(settled.delivery(number, 5))
    async with running(ingest) as task:
        await until(lambda: ingest.retrying)
        tried = len(store.writes)
        ingest.stop()
        await asyncio.wait_for(task, 20)
    assert settled.numbers == list(range(0, 50, 5))
    assert all(isinstance(settlement, StoreUnavailable) for _, settlement in settled)
    assert len(store.writes) <= tried + 1, "each try may take a time-out, and the process is asked to go"
    assert ingest.outstanding == 0


async def test_lost_leadership_ends_the_loop_and_settles_the_batch_as_not_stored() -> None:
    store, settled = Replay(StoreUnavailable("away"), LeadershipLost("another has it")), Settled()
    ingest = loop_over(store)
    ingest.offer(settled.delivery(0, 10))
    ingest.offer(settled.delivery(10, 10))
    async with running(ingest) as task:
        with pytest.raises(LeadershipLost):
            await asyncio.wait_for(task, 20)
    ((number, settlement),) = settled
    assert number == 0
    assert isinstance(settlement, StoreUnavailable)


async def test_unexpected_error_settles_the_batch_as_not_stored_and_is_raised() -> None:
    store, settled = Replay(ZeroDivisionError()), Settled()
    ingest = loop_over(store)
    ingest.offer(settled.delivery(0))
    async with running(ingest) as task:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(task, 20)
    assert isinstance(settled[0][1], StoreUnavailable)


async def test_full_ingest_says_so_and_calls_when_there_is_room() -> None:
    store, settled = Replay(), Settled()
    store.open.clear()
    ingest = loop_over(store, capacity=20)
    called: list[bool] = []
    ingest.on_room = lambda: called.append(ingest.full)
    async with running(ingest):
        ingest.offer(settled.delivery(0, 10))
        await until(lambda: store.writes)
        assert not ingest.full
        ingest.offer(settled.delivery(10, 10))
        assert ingest.full
        waiting = asyncio.create_task(ingest.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        store.open.set()
        await asyncio.wait_for(waiting, 20)
        await until(lambda: len(settled) == 2)
    assert called == [False]


async def test_stalled_time_counts_only_while_something_is_outstanding() -> None:
    store, settled = Replay(), Settled()
    store.open.clear()
    ingest = loop_over(store)
    async with running(ingest):
        assert ingest.stalled_s == 0
        ingest.offer(settled.delivery(0))
        await until(lambda: ingest.stalled_s > 0.02)
        store.open.set()
        await until(lambda: settled)
        assert ingest.stalled_s == 0


@pytest.mark.parametrize("answers", [[], [StoreUnavailable("away")]])
async def test_idle_loop_checks_the_store_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, answers: list[StoreUnavailable]
) -> None:
    monkeypatch.setattr(ingest_module, "_CHECK_EVERY_S", 0.01)
    store, settled = Replay(*answers), Settled()
    ingest = loop_over(store)
    async with running(ingest):
        await until(lambda: len(store.writes) >= 2)
        assert not any(store.writes)
        ingest.offer(settled.delivery(0))
        await until(lambda: settled)
    assert settled == [(0, [Kept.STORED])]


async def test_idle_check_finds_lost_leadership(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "_CHECK_EVERY_S", 0.01)
    async with running(loop_over(Replay(LeadershipLost("another has it")))) as task:
        with pytest.raises(LeadershipLost):
            await asyncio.wait_for(task, 20)


async def test_discard_settles_all_that_waits_as_not_stored() -> None:
    settled = Settled()
    ingest = loop_over(Replay())
    for number in range(30):
        ingest.offer(settled.delivery(number))
    ingest.discard()
    assert settled.numbers == list(range(30))
    assert ingest.outstanding == 0
    assert all(isinstance(settlement, StoreUnavailable) for _, settlement in settled)
