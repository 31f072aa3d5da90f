"""The bridge process: stand by until it holds the lock, serve, stop without losing acknowledgements.

Of several bridges with one name exactly one is active: it holds an advisory lock on the database connection that it
writes with. The others wait for the lock; the one that obtains it connects to the broker and receives its queue.
Where the source divides the messages among the bridges, there is no such lock, and all are active.
"""

import asyncio
import contextlib

import structlog
from prometheus_client import Gauge

from bridge import health, sources
from bridge.clock import Clock
from bridge.errors import LeadershipLost, ReadOnlyDatabase, StoreUnavailable
from bridge.ingest import Ingest
from bridge.metrics import IngestMetrics, measure_clock, measure_rejects_not_kept, process_registry
from bridge.settings.bridge import BridgeSettings
from bridge.settings.group import Group
from bridge.sources.port import Divided, Source
from bridge.status import Status, reporting
from bridge.store.ownership import Ownership
from bridge.store.postgres import PostgresStore
from bridge.store.quotas import Quotas
from bridge.url import database_host
from bridge.writer_status import WriterStatus

log = structlog.get_logger(__name__)

_STANDBY_PAUSE_S = 0.5


class Bridge:
    """One bridge process."""

    def __init__(self, settings: BridgeSettings, source_settings: Group) -> None:
        self._settings = settings
        kind = sources.named(settings.source)
        registry = process_registry()
        self._registry = registry
        self._ingest_metrics = IngestMetrics(registry)
        self._writer_status = WriterStatus(self._ingest_metrics)
        self._leader = Gauge("fleet_bridge_leader", "1 if this bridge is active, 0 in standby.", registry=registry)
        Gauge(
            "fleet_bridge_shares", "1 if its source divides the messages among several bridges.", registry=registry
        ).set(kind.shares)
        self._clock = Clock(settings.clock_limit_s)
        measure_clock(self._clock, registry)
        quotas = Quotas(settings.quota)
        measure_rejects_not_kept(quotas.not_kept, registry)
        self._open = kind.open(source_settings, registry)
        self._partitions = kind.partitions(source_settings) if kind.partitions is not None else 0
        self._store = PostgresStore(
            settings.database_url,
            source=settings.source,
            lock_name=None if kind.shares else settings.bridge_name,
            command_timeout_s=settings.write_timeout_s,
            interval_s=settings.reading_interval_s,
            clock=self._clock,
            quotas=quotas,
            copy_above=settings.copy_above,
        )
        self._ingest: Ingest | None = None
        self._source: Source | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then commit and acknowledge the current batch, and disconnect.

        Raises `Misconfigured` when the guarantee cannot be given with this configuration.
        """
        settings = self._settings
        host, port = settings.bridge_http_host, settings.bridge_http_port
        async with (
            health.serving(host, port, "FLEET_BRIDGE_HTTP", self._registry, self._not_ready),
            reporting(settings.database_url, "bridge", port, self._status, name=settings.bridge_name),
        ):
            try:
                while not stop.is_set():
                    if await self._lead(stop):
                        await self._serve(stop)
            finally:
                await self._store.close()

    async def _lead(self, stop: asyncio.Event) -> bool:
        """Wait for the database and the lock; False when stopped before."""
        state = ""
        while not stop.is_set():
            try:
                await self._store.connect()
            except StoreUnavailable as error:
                if state != (state := str(error)):
                    standby = isinstance(error, LeadershipLost)
                    event = "standing by" if standby else "waiting for the database"
                    log.info(event, reason=state, database=database_host(self._settings.database_url))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STANDBY_PAUSE_S):
                        await stop.wait()
            else:
                return True
        return False

    async def _serve(self, stop: asyncio.Event) -> None:
        """Ingest until stopped or until another bridge has the lock."""
        settings = self._settings
        self._ingest = ingest = Ingest(
            self._store,
            self._clock,
            batch_size=settings.batch_size,
            batch_age_s=settings.batch_wait_ms / 1000,
            capacity=settings.buffer_capacity,
            metrics=self._ingest_metrics,
        )
        self._source = source = self._open(ingest)
        self._leader.set(1)
        log.info("serving", bridge=settings.bridge_name)
        writing, receiving = asyncio.create_task(ingest.run()), asyncio.create_task(source.run())
        owning, stopping = asyncio.create_task(self._own(source)), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({writing, receiving, owning, stopping}, return_when=asyncio.FIRST_COMPLETED)
            source.stop_reading()
            ingest.stop()
            await writing
            await source.close()
            for work in (receiving, owning):
                if work.done():
                    work.result()
        except LeadershipLost as error:
            log.warning("leadership lost: another bridge took over", reason=str(error))
            source.abort("another bridge took over")
        finally:
            for task in (writing, receiving, owning, stopping):
                task.cancel()
            await asyncio.gather(writing, receiving, owning, stopping, return_exceptions=True)
            self._leader.set(0)
            self._ingest = self._source = None

    async def _own(self, source: Source) -> None:
        """Let the source read the partitions that this bridge owns."""
        if not isinstance(source, Divided):
            await asyncio.get_running_loop().create_future()
            return
        settings = self._settings
        ownership = Ownership(settings.database_url, settings.bridge_name, self._partitions, settings.write_timeout_s)
        try:
            async for partitions in ownership.changes():
                log.info("partitions", own=sorted(partitions), of=self._partitions)
                await source.assign(partitions)
        finally:
            await ownership.close()

    def _status(self) -> Status:
        if self._ingest is None:
            self._writer_status.begin()
            return Status(active=False, problem=self._not_ready())
        return self._writer_status.look(self._ingest, self._not_ready())

    def _not_ready(self) -> str | None:
        if self._ingest is None or self._source is None:
            return "standing by, or waiting for the database"
        if (reason := self._clock.problem) is not None:
            return reason
        if (reason := self._source.not_ready) is not None:
            return reason
        if self._ingest.retrying:
            read_only = isinstance(self._ingest.outage, ReadOnlyDatabase)
            return str(self._ingest.outage) if read_only else "database unavailable"
        if self._ingest.stalled_s > self._settings.stall_timeout_s:
            return f"messages are outstanding and no commit has moved for {self._ingest.stalled_s:.0f} s"
        return None
