"""The keeper as a process: stand by until the lock is ours, run what is due, tell its state.

It may be killed at any moment: duties only continue from what is committed. It is on no reading's path: without it the
bridge and the API store and answer, and create the partitions that a reading needs themselves.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import structlog

from bridge import certificates, health
from bridge.backoff import Backoff
from bridge.errors import LeadershipLost, Misconfigured, StoreUnavailable
from bridge.keeper.leader import leading
from bridge.keeper.metrics import KeeperMetrics
from bridge.keeper.port import Companion, Duty
from bridge.keeper.schedule import Schedule
from bridge.metrics import process_registry
from bridge.settings.keeper import KeeperSettings
from bridge.status import Status, StatusColumn, reporting
from bridge.store.database_errors import asking, survives
from bridge.store.session import Connection
from bridge.url import database_host

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 2.0


class Keeper:
    """One keeper process."""

    def __init__(self, settings: KeeperSettings, duties: Sequence[Duty], companions: Sequence[Companion] = ()) -> None:
        self._settings = settings
        self._duties = duties
        self._schedule = schedule = Schedule(duties, time.monotonic())
        self._registry = process_registry()
        self._metrics = KeeperMetrics(self._registry, duties, lambda duty: schedule.lag_s(duty, time.monotonic()))
        certificates.measure(self._registry, settings.certificate_files)
        self._companions = companions
        for companion in companions:
            companion.measure(self._registry)
        self._waiting = "waiting for the database"
        """Why this process does not lead; empty when it does."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, which ends a running duty. Raises `Misconfigured` when the schema does not fit."""
        host, port = self._settings.keeper_http_host, self._settings.keeper_http_port
        details = self._metrics.details
        async with (
            health.serving(host, port, "FLEET_KEEPER_HTTP", self._registry, self._not_ready, details),
            reporting(self._settings.database_url, "keeper", port, self._status),
        ):
            keeping, stopping = asyncio.create_task(self._keep()), asyncio.create_task(stop.wait())
            await asyncio.wait({keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (keeping, stopping):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    async def _keep(self) -> None:
        """Lead whenever the lock is free, for as long as the session lives."""
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while True:
            try:
                async with leading(self._settings) as connection:
                    backoff.reset()
                    await self._lead(connection)
            except LeadershipLost as error:
                self._schedule.rest()
                self._wait(f"standing by: {error}")
            except StoreUnavailable as error:
                self._wait(f"waiting for the database: {error}")
            await asyncio.sleep(backoff.next())

    def _wait(self, why: str) -> None:
        if self._waiting != why:
            log.info("keeper waiting", reason=why, database=database_host(self._settings.database_url))
        self._waiting = why

    async def _lead(self, connection: Connection) -> None:
        """Run duties as they are due. Raises `StoreUnavailable` when the session is lost."""
        log.info("keeper leading")
        self._schedule.resume(time.monotonic())
        self._waiting = ""
        self._metrics.leads = True
        beside = [asyncio.create_task(_accompany(companion)) for companion in self._companions]
        try:
            while True:
                if (duty := self._schedule.next(time.monotonic())) is not None:
                    await self._perform(duty, connection)
                else:
                    await self._idle(connection)
        finally:
            self._metrics.leads = False
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _idle(self, connection: Connection) -> None:
        """Wait for the next duty, or for the moment to show the database that this process lives."""
        await asyncio.sleep(min(self._schedule.wait_s(time.monotonic()), self._settings.keeper_timeout_s / 6))
        with asking():
            await connection.execute("SELECT")

    async def _perform(self, duty: Duty, connection: Connection) -> None:
        """Run it. A failure is counted and does not stop the others, unless the session is lost."""
        try:
            with self._metrics.running(duty), asking():
                more = await duty.run(connection)
        except Exception as error:
            reason = str(error) or type(error).__name__
            ours = not isinstance(error, (StoreUnavailable, Misconfigured))
            log.warning("duty failed", duty=duty.name, reason=reason, exc_info=ours)
            self._schedule.failed(duty, time.monotonic(), reason)
            if isinstance(error, StoreUnavailable) and not survives(error):
                raise
        else:
            self._schedule.succeeded(duty, time.monotonic(), more=more)

    def _status(self) -> Status:
        if not self._metrics.leads:
            return Status(active=False, problem=self._not_ready())
        now = time.monotonic()
        figures: dict[StatusColumn, float | None] = {}
        for duty in self._duties:
            figures |= duty.status()
        figures["lag_s"] = max(self._schedule.lag_s(duty, now) for duty in self._duties)
        return Status(active=True, problem=self._not_ready(), figures=figures)

    def _not_ready(self) -> str | None:
        if problem := self._waiting or self._schedule.problem(time.monotonic()):
            return problem
        return next((f"{duty.name}: {problem}" for duty in self._duties if (problem := duty.problem())), None)


async def _accompany(companion: Companion) -> None:
    """Run it until cancelled."""
    backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
    while True:
        try:
            await companion.run()
        except StoreUnavailable as error:
            log.warning("companion failed", companion=type(companion).__name__, reason=str(error))
        except Exception:
            log.exception("companion failed", companion=type(companion).__name__)
        await asyncio.sleep(backoff.next())
