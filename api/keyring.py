"""Caches API keys for a second, so that a reading does not cost a look-up.

Ids of which there is no key are remembered as long, and may name a key that was made meanwhile.

The process is notified of a revocation (LISTEN) when it commits, and drops the key. While the listening connection is
lost, nothing is cached and every request looks its key up. If the link is dead without an error, a revoked key is
accepted for at most that second.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import structlog

from api import keys
from api.auth import ApiKey, id_of, is_key
from api.database import Connection, Pool, connection
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.store.database_errors import asking
from bridge.store.session import connect

log = structlog.get_logger(__name__)

_SESSION = {"application_name": "fleet-api-keys"}
REMEMBERED_S = 1.0
_TIMEOUT_S = 10.0
_RELISTEN_S = 1.0
_WRITE_USED_S = 5.0
_MOST = 100_000
_MOST_MISSING = 10_000


class Keyring:
    """Verifies keys."""

    def __init__(self, pool: Pool, database_url: str) -> None:
        self._pool = pool
        self._url = database_url
        self._known: dict[str, tuple[ApiKey, float]] = {}
        self._missing: dict[str, float] = {}
        self._accepted: dict[str, None] = {}
        """The ids of keys that were valid; those that were so last are at the end."""
        self._changes = 0
        self._listening = False
        self._used: dict[str, datetime] = {}

    async def verify(self, token: str) -> tuple[ApiKey | None, str]:
        """The key, or None and the reason. Raises `StoreUnavailable`: without the database no key is accepted."""
        id_ = id_of(token)
        key = await self._find(id_) if id_ is not None else None
        if key is None or not is_key(token, key):
            return None, "unknown API key"
        now = datetime.now(UTC)
        refusal = key.refusal(now)
        if refusal is not None:
            return None, refusal
        self._used[key.id] = now
        if key.id not in self._accepted:
            self._accepted[key.id] = None
            if len(self._accepted) > _MOST:
                del self._accepted[next(iter(self._accepted))]
        return key, ""

    def may_look_up_in_vain(self, token: str) -> bool:
        """Whether the database has to be asked for a key that was never valid, as far as this process knows."""
        id_ = id_of(token)
        return id_ is not None and id_ not in self._accepted and not self._is_missing(id_)

    def _is_missing(self, id_: str) -> bool:
        return time.monotonic() < self._missing.get(id_, 0.0)

    async def _find(self, id_: str) -> ApiKey | None:
        known = self._known.get(id_)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        if self._is_missing(id_):
            return None
        changes, asked_at = self._changes, time.monotonic()
        async with connection(self._pool) as c:
            key = await keys.find(c, id_)
        # A change that was announced during the query may be newer than its result.
        if key is not None and self._listening and changes == self._changes:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[id_] = key, asked_at + REMEMBERED_S
        if key is None:
            if len(self._missing) >= _MOST_MISSING:
                self._missing.clear()
            self._missing[id_] = asked_at + REMEMBERED_S
        return key

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen for changes and record the use of keys until the context is left."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._write_uses())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._write_used()

    async def _listen(self) -> None:
        disabled = ""
        while True:
            lost = asyncio.Event()
            try:
                listener = await connect(self._url, _TIMEOUT_S, _SESSION)
                with asking():
                    await self._listen_on(listener, lost)
            except (StoreUnavailable, Misconfigured) as error:
                if disabled != (disabled := str(error)):
                    log.warning("key cache disabled: not listening for changes", reason=disabled)
            else:
                disabled = ""
            finally:
                self._forget_all()
            await asyncio.sleep(_RELISTEN_S)

    async def _listen_on(self, listener: Connection, lost: asyncio.Event) -> None:
        """Listen until the connection is lost; query it periodically, so that a dead link is detected."""
        try:
            listener.add_termination_listener(lambda _: lost.set())
            await listener.add_listener("fleet_api_key", self._changed)
            self._listening = True
            log.info("key cache enabled")
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WRITE_USED_S):
                        await lost.wait()
                        return
                await listener.execute("SELECT 1")
        finally:
            self._listening = False
            listener.terminate()

    def _changed(self, _: object, __: int, ___: str, id_: object) -> None:
        self._changes += 1
        self._known.pop(str(id_), None)

    def _forget_all(self) -> None:
        self._listening = False
        self._changes += 1
        self._known.clear()

    async def _write_uses(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_USED_S)
            await self._write_used()

    async def _write_used(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with connection(self._pool) as c:
                await keys.mark_used(c, sorted(used.items()))
        except StoreUnavailable:
            self._used = used | self._used
        except Misconfigured as error:
            log.error("cannot record the use of keys", reason=str(error))
