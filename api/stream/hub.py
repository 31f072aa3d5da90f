"""All open streams of this process: one look a second for all of them, and each change serialized once.

Viewers with the same filter share the chunks that they are sent, snapshots included, and their compressed form.
"""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry

from api.auth import ApiKey
from api.changes import AsOf
from api.problems import Problem, unavailable
from api.stream import events
from api.stream.coding import Chunk, Coding
from api.stream.filters import Filter
from api.stream.look import Look, Looker
from api.stream.mirror import FIRST, Place
from api.stream.pace import LOOK_EVERY_S, Pace
from api.stream.viewer import Viewer
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.settings.api import ApiSettings

log = structlog.get_logger(__name__)

MOST_ID = 100
"""Characters of the longest id."""


class Hub:
    """The viewers, and the task that looks for them."""

    def __init__(self, settings: ApiSettings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._looker = Looker(settings)
        self._viewers: dict[Filter, set[Viewer]] = defaultdict(set)
        self._of_key: Counter[str] = Counter()
        self._arrived = asyncio.Event()
        self._stopped = False
        self._as_of: AsOf | None = None
        """The state that the mirror shows."""
        self._outage = False
        self._sent_bytes = 0
        """To all viewers since the last look."""
        self._pace = Pace(settings.stream_mib_per_s * (1 << 20))
        self._pages: dict[tuple[Filter, Place], tuple[Chunk, Place | None]] = {}
        self._dropped = prometheus_client.Counter(
            "fleet_stream_dropped",
            "Live streams that were closed because the client read too slowly.",
            registry=registry,
        )
        open_ = prometheus_client.Gauge("fleet_stream_viewers", "Open live streams.", registry=registry)
        open_.set_function(self._of_key.total)

    @contextlib.asynccontextmanager
    async def running(self, stopping: asyncio.Event) -> AsyncIterator[None]:
        """Look as long as there are viewers; end all streams when `stopping` is set."""
        tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._stop(stopping))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._looker.forget()

    @contextlib.asynccontextmanager
    async def viewing(self, watched: Filter, key: ApiKey, coding: Coding) -> AsyncIterator[Viewer]:
        """Add a viewer, from when on it is sent every change. Raises 422, 429 and 503, and `StoreUnavailable`."""
        self._refuse(key)
        viewer = Viewer(watched, self._settings.stream_buffer_kib * 1024, coding)
        self._of_key[key.id] += 1
        self._viewers[watched].add(viewer)
        try:
            if self._as_of is not None and not self._outage and not self._looker.is_restricted:
                viewer.ready.set_result(None)
            self._arrived.set()
            await viewer.ready
            yield viewer
        finally:
            self._of_key -= Counter({key.id: 1})
            self._viewers[watched].discard(viewer)
            if not self._viewers[watched]:
                del self._viewers[watched]
            viewer.ready.cancel()
            if viewer.end_reason == "read too slowly":
                self._dropped.inc()

    def opening(self, viewer: Viewer, last_id: str) -> Iterator[Chunk]:
        """What a viewer is sent first: what has changed since `last_id`, or a snapshot if that cannot be told."""
        assert self._as_of is not None  # the viewer is ready
        earlier = self._earlier(last_id)
        if earlier is None:
            yield from self._snapshot(viewer.watched, self._id(self._as_of))
        else:
            yield from map(Chunk, self._since(viewer.watched, earlier, self._as_of))
        if self._pace.is_slow:
            yield Chunk(events.pace(datetime.now(UTC), self._pace.every_s))

    def send(self, watched_by: Callable[[Filter], Iterable[bytes]]) -> None:
        """Send events to all viewers; the function makes those of a filter."""
        for watched, viewers in list(self._viewers.items()):
            chunks: list[Chunk] | None = None
            for viewer in list(viewers):
                if _is_ready(viewer):
                    chunks = list(map(Chunk, watched_by(watched))) if chunks is None else chunks
                    for chunk in chunks:
                        self._sent_bytes += viewer.offer(chunk)

    def _refuse(self, key: ApiKey) -> None:
        settings = self._settings
        if self._stopped:
            raise unavailable("the server is shutting down")
        if self._of_key.total() >= settings.stream_max:
            raise unavailable(f"the server has {settings.stream_max} open live streams, the most that it may have")
        if self._of_key[key.id] >= settings.stream_max_per_key:
            detail = f"this key has {settings.stream_max_per_key} open live streams, the most that it may have"
            raise Problem(429, detail, {"Retry-After": str(round(settings.stream_heartbeat_s) or 1)})

    async def _stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._stopped = True
        for viewer in self._all():
            viewer.end("shutting down")
            self._fail(viewer, unavailable("the server is shutting down"))

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._viewers:
                began = time.monotonic()
                self._pace.begin(began, time.process_time())
                await self._look()
                self._pages.clear()
                self._set_pace()
                await asyncio.sleep(LOOK_EVERY_S - (time.monotonic() - began))
                await self._rest(began + self._pace.every_s - time.monotonic())
            self._as_of, self._outage = None, False
            self._looker.forget()

    def _set_pace(self) -> None:
        """Look less often where every second would be too often, and say so when that begins and ends."""
        was_slow = self._pace.is_slow
        self._pace.end(time.monotonic(), time.process_time(), self._sent_bytes)
        if self._pace.is_slow != was_slow:
            event = events.pace(datetime.now(UTC), self._pace.every_s)
            self.send(lambda _: [event])
        self._sent_bytes = 0

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until a new viewer needs a look."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                while all(viewer.ready.done() for viewer in self._all()):
                    self._arrived.clear()
                    await self._arrived.wait()

    async def _look(self) -> None:
        watched = frozenset(self._viewers)
        try:
            look = await self._looker.look(watched)
        except (StoreUnavailable, Misconfigured) as error:
            self._lost(error)
        except Exception as error:
            log.error("live stream failed", exc_info=error)
            self._lost(error)
        else:
            self._pages.clear()
            self._found(look, watched)

    def _lost(self, error: Exception) -> None:
        if not self._outage:
            log.warning("live stream interrupted", reason=str(error))
            event = events.database(datetime.now(UTC), available=False)
            self.send(lambda _: [event])
        self._outage = True
        for viewer in self._all():
            self._fail(viewer, unavailable("the database is unavailable"))

    def _found(self, look: Look, watched: frozenset[Filter]) -> None:
        self._as_of = look.as_of
        if self._outage:
            event = events.database(datetime.now(UTC), available=True)
            self.send(lambda _: [event])
        self._outage = False
        self._end_of_left_sites(look)
        self._send_changes(look)
        self._send_alarms(look)
        for viewer in self._all():
            if self._looker.is_restricted and viewer.watched.is_whole:
                self._fail(viewer, _too_many(self._settings.stream_whole_devices))
                viewer.end("too many devices")
            elif viewer.watched in watched and not viewer.ready.done():
                viewer.ready.set_result(None)

    def _send_changes(self, look: Look) -> None:
        id_, at = self._id(look.as_of), look.as_of.at.timestamp()
        texts = [(row, row.text(at)) for row in look.changed] if any(map(_is_ready, self._all())) else []

        def of(watched: Filter) -> Iterable[bytes]:
            rows = [(row, text) for row, text in texts if watched.has(row.kind, row.id, row.site)]
            return events.changes(rows, look.as_of.at, id_) if rows else ()

        if texts:
            self.send(of)

    def _send_alarms(self, look: Look) -> None:
        if look.alarms:
            self.send(lambda watched: [events.alarm(one.text) for one in look.alarms if one.concerns(watched)])

    def _end_of_left_sites(self, look: Look) -> None:
        """A device is no longer at a site: its viewers connect again, and get a snapshot without it."""
        for viewer in self._all():
            if viewer.watched.depends_on(look.left):
                viewer.end("the register has changed")

    def _all(self) -> list[Viewer]:
        return [viewer for viewers in self._viewers.values() for viewer in viewers]

    def _fail(self, viewer: Viewer, problem: Problem) -> None:
        if not viewer.ready.done():
            viewer.ready.set_exception(problem)

    def _id(self, as_of: AsOf) -> str:
        return f"{as_of.token()}-{self._looker.mirror.register_mark}"

    def _earlier(self, last_id: str) -> AsOf | None:
        """The state of an id from which changes can be told."""
        token, _, mark = last_id.rpartition("-")
        earlier = AsOf.parse(token) if mark == self._looker.mirror.register_mark else None
        return earlier if earlier is not None and self._as_of is not None and earlier.is_before(self._as_of) else None

    def _since(self, watched: Filter, earlier: AsOf, now: AsOf) -> Iterator[bytes]:
        rows = self._looker.mirror.since(earlier, now.at, watched)
        return events.changes([(row, row.text(now.at.timestamp())) for row in rows], now.at, self._id(now))

    def _snapshot(self, watched: Filter, id_: str) -> Iterator[Chunk]:
        """Each page is of the mirror as it is when the page is made: the changes that it anticipates follow.

        The id is that of the beginning, because the changes since then are still to be sent.
        """
        place: Place | None = FIRST
        while place is not None:
            event, place = self._page(watched, place)
            if place is None:
                yield Chunk(events.identified(id_, b""))
            yield event

    def _page(self, watched: Filter, place: Place) -> tuple[Chunk, Place | None]:
        key = watched, place
        if key not in self._pages:
            rows, following = self._looker.mirror.page(watched, place, events.MOST_ROWS)
            at = self._as_of.at if self._as_of is not None else datetime.now(UTC)
            self._pages[key] = Chunk(events.snapshot(rows, at, more=following is not None)), following
        return self._pages[key]


def _is_ready(viewer: Viewer) -> bool:
    return viewer.ready.done() and not viewer.ready.cancelled() and viewer.ready.exception() is None


def _too_many(most: int) -> Problem:
    detail = f"more than {most} devices: watch those of a site, or name ids"
    return Problem(422, detail, errors=[{"field": "site", "reason": detail}])
