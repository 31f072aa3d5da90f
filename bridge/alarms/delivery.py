"""Delivers notifications beside the duties of the leading keeper: a slow receiver delays no duty and no other one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.alarms.mqtt import Publisher
from bridge.alarms.notification import Notification
from bridge.alarms.outbox import Outbox, Pool
from bridge.alarms.webhook import Gone, NotDelivered, post
from bridge.backoff import Backoff
from bridge.errors import StoreUnavailable
from bridge.mqtt.publishing import NotPublished
from bridge.settings.keeper import KeeperSettings
from bridge.store.database_errors import asking
from bridge.store.session import Connection, connect

log = structlog.get_logger(__name__)

MQTT = "mqtt"
_POLL_S = 0.5
_EXPIRE_EVERY_S = 60.0
_BATCH = 8
_MOST_SERVED = 32  # targets at a time: each takes connections and memory, and there may be thousands
_CLOSE_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_SESSION = {"application_name": "fleet-keeper-alarms", "timezone": "UTC", "jit": "off"}
_WEBHOOK = "SELECT url, secret FROM alarm_webhook WHERE id = $1 AND disabled_at IS NULL"
_DISABLE = "UPDATE alarm_webhook SET disabled_at = now() WHERE id = $1"


class _Target:
    """What this process knows about one receiver."""

    def __init__(self) -> None:
        self.backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self.task: asyncio.Task[None] | None = None
        self.not_before = 0.0

    @property
    def is_served(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def is_free(self) -> bool:
        return not self.is_served and time.monotonic() >= self.not_before


class Delivery:
    """Delivers to MQTT and webhooks. One instance lives as long as the process."""

    def __init__(self, settings: KeeperSettings) -> None:
        self._settings = settings
        self._lease_s = 2 * settings.webhook_timeout_s + 5
        self._publisher = None
        if settings.alarm_mqtt_url is not None:
            self._publisher = Publisher(settings.alarm_mqtt_url, settings, settings.webhook_timeout_s)
        self._targets: dict[str, _Target] = {}
        self._expire_at = 0.0

    def measure(self, registry: CollectorRegistry) -> None:
        """Add the metrics of deliveries to the registry. Must be called before `run`."""
        self._attempts = Counter(
            "fleet_keeper_alarm_deliveries",
            "Notifications of alarms: delivered, failed (to be sent again), or given_up.",
            ["target", "result"],
            registry=registry,
        )
        self._lag = Gauge(
            "fleet_keeper_alarm_delivery_lag_seconds",
            "Age of the oldest notification that is still to be delivered.",
            ["target"],
            registry=registry,
        )
        self._pending = Gauge(
            "fleet_keeper_alarm_deliveries_pending",
            "Notifications that are still to be delivered.",
            ["target"],
            registry=registry,
        )
        for target in (MQTT, "webhook"):
            self._lag.labels(target).set(0)
            self._pending.labels(target).set(0)
            for result in ("delivered", "failed", "given_up"):
                self._attempts.labels(target, result)

    async def run(self) -> None:
        """Deliver until cancelled. Raises `StoreUnavailable`."""
        self._targets.clear()
        timeout_s = self._settings.keeper_timeout_s

        async def connected(_: str | None = None, /, **options: Any) -> Connection:
            return await connect(self._settings.database_url, timeout_s, _SESSION, **options)

        with asking():
            pool: Pool = await asyncpg.create_pool(min_size=0, max_size=4, connect=connected, reset=_keep_session)
        try:
            timeout = httpx.Timeout(self._settings.webhook_timeout_s)
            async with httpx.AsyncClient(timeout=timeout, trust_env=False, follow_redirects=False) as client:
                await self._deliver_all(Outbox(pool), client, pool)
        finally:
            tasks = [target.task for target in self._targets.values() if target.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _close(pool)

    async def _deliver_all(self, outbox: Outbox, client: httpx.AsyncClient, pool: Pool) -> None:
        """Start a task for each target that has something due and is not served already, for some webhooks at a time:
        one that has waited follows one that has failed."""
        while True:
            if time.monotonic() >= self._expire_at:
                given_up = await outbox.expire(timedelta(hours=self._settings.alarm_delivery_max_age_h))
                self._attempts.labels("webhook", "given_up").inc(given_up)
                self._expire_at = time.monotonic() + _EXPIRE_EVERY_S
            waiting = await outbox.waiting()
            for name in (MQTT, "webhook"):
                own = [w for w in waiting if _label(w.target) == name]
                self._lag.labels(name).set(max((w.lag_s for w in own), default=0))
                self._pending.labels(name).set(sum(w.pending for w in own))
            served = sum(target.is_served for target in self._targets.values())
            for target in (w.target for w in waiting if w.is_due):
                state = self._targets.setdefault(target, _Target())
                if state.is_free and (target == MQTT or served < _MOST_SERVED):
                    served += 1
                    state.task = asyncio.create_task(self._serve(outbox, client, pool, target, state))
            await asyncio.sleep(_POLL_S)

    async def _serve(self, outbox: Outbox, client: httpx.AsyncClient, pool: Pool, target: str, state: _Target) -> None:
        """Deliver what is due for one target, and pause when nothing of a batch could be delivered."""
        try:
            send = await self._sender(client, pool, target)
            while send is not None and (batch := await outbox.claim(target, _BATCH, self._lease_s)):
                delivered = await send(outbox, batch)
                if delivered == 0:
                    state.not_before = time.monotonic() + state.backoff.next()
                    return
                state.backoff.reset()
        except StoreUnavailable as error:
            state.not_before = time.monotonic() + state.backoff.next()
            log.warning("alarms not delivered", target=target, reason=str(error))
        except Exception:
            state.not_before = time.monotonic() + state.backoff.next()
            log.exception("alarms not delivered", target=target)

    async def _sender(
        self, client: httpx.AsyncClient, pool: Pool, target: str
    ) -> Callable[[Outbox, Sequence[Notification]], Awaitable[int]] | None:
        """How to send a batch to the target, which returns how many were delivered; None when it is not served."""
        if target == MQTT:
            publisher = self._publisher
            return None if publisher is None else lambda outbox, batch: self._publish(publisher, outbox, batch)
        with asking():
            row = await pool.fetchrow(_WEBHOOK, target)
        if row is None:
            return None

        async def send_one(outbox: Outbox, notification: Notification) -> bool:
            refuse_local = self._settings.webhook_refuse_local
            try:
                async with asyncio.timeout(self._settings.webhook_timeout_s):
                    await post(client, row["url"], row["secret"], notification, refuse_local=refuse_local)
            except TimeoutError:
                error: Exception = NotDelivered(f"no answer within {self._settings.webhook_timeout_s:g} s")
            except Gone as gone:
                error = gone
                with asking():
                    await pool.execute(_DISABLE, target)
            except NotDelivered as failed:
                error = failed
            else:
                await self._succeeded(outbox, target, [notification])
                return True
            await self._failed(outbox, target, notification, error)
            return False

        async def send(outbox: Outbox, batch: Sequence[Notification]) -> int:
            return sum(await asyncio.gather(*(send_one(outbox, notification) for notification in batch)))

        return send

    async def _publish(self, publisher: Publisher, outbox: Outbox, batch: Sequence[Notification]) -> int:
        try:
            await publisher.publish(batch)
        except NotPublished as error:
            for notification in batch:
                await self._failed(outbox, MQTT, notification, error)
            return 0
        await self._succeeded(outbox, MQTT, batch)
        return len(batch)

    async def _succeeded(self, outbox: Outbox, target: str, batch: Sequence[Notification]) -> None:
        await outbox.delivered(batch)
        self._attempts.labels(_label(target), "delivered").inc(len(batch))

    async def _failed(self, outbox: Outbox, target: str, notification: Notification, error: Exception) -> None:
        is_given_up = await outbox.retry(notification, str(error))
        self._attempts.labels(_label(target), "given_up" if is_given_up else "failed").inc()
        log.warning("alarm not delivered", target=target, id=notification.id, reason=str(error))


async def _keep_session(_: object) -> None:
    """No statement leaves state in the session."""


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await pool.close()
    except (TimeoutError, OSError):
        pool.terminate()


def _label(target: str) -> str:
    return MQTT if target == MQTT else "webhook"
