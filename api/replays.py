"""POST /v1/rejects/replay: store rejected messages after their cause is gone. The replay itself is `bridge.replay`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from uuid import UUID

from fastapi import APIRouter

from api.alarm_models import BODY_RESPONSES
from api.database import connection
from api.problems import unavailable
from api.reject_models import ReplayAnswer, ReplayBody, ReplayResult
from api.routing import needs
from api.services import Caller, WithServices
from bridge.formats.port import MAX_READINGS_PER_BODY
from bridge.replay import Replay, Replayed
from bridge.settings.api import ApiSettings
from bridge.store.postgres import PostgresStore

router = APIRouter(prefix="/v1/rejects", tags=["rejects"])

_SHARE_OF_REQUEST = 0.5
"""Of the time of a request: no further message is begun after it, so that the answer is sent in time."""


@router.post(
    "/replay",
    operation_id="replayRejects",
    summary="Replay rejected messages",
    openapi_extra=needs("admin"),
    responses=BODY_RESPONSES,
)
async def replay_rejects(services: WithServices, caller: Caller, body: ReplayBody) -> ReplayAnswer:
    """Decode messages again and store their readings, for instance after a limit was raised. Replaying a message again
    stores nothing twice. A process replays for one request at a time; others get 503."""
    if services.replaying.locked():
        raise unavailable("another request is replaying messages", 1)
    loop = asyncio.get_running_loop()
    async with services.replaying, _stores(services.settings) as store_of, connection(services.pool) as c:
        until = loop.time() + _SHARE_OF_REQUEST * services.settings.http_request_timeout_s
        window, actor = services.settings.accepted_window, f"key:{caller.id}"
        replay = Replay(store_of, window, services.clock, actor, body.even_forbidden, MAX_READINGS_PER_BODY)
        step = replay.foresee if body.dry_run else replay.run
        items = [_result(await step(c, id_)) if loop.time() < until else _left(id_) for id_ in dict.fromkeys(body.ids)]
    return ReplayAnswer(dry_run=body.dry_run, items=items)


@contextlib.asynccontextmanager
async def _stores(settings: ApiSettings) -> AsyncIterator[Callable[[str], PostgresStore]]:
    """A store for each source, with a connection of its own that is closed in the end."""
    stores: dict[str, PostgresStore] = {}

    def store_of(source: str) -> PostgresStore:
        timeout_s, interval_s = settings.write_timeout_s, settings.reading_interval_s
        made = PostgresStore(settings.database_url, source=source, command_timeout_s=timeout_s, interval_s=interval_s)
        return stores.setdefault(source, made)

    try:
        yield store_of
    finally:
        for store in stores.values():
            await store.close()


def _result(replayed: Replayed) -> ReplayResult:
    return ReplayResult(
        id=replayed.id,
        outcome=replayed.ending,
        stored=replayed.stored,
        duplicates=replayed.duplicates,
        rejected=replayed.rejected,
        detail=replayed.detail,
    )


def _left(id_: UUID) -> ReplayResult:
    detail = "not tried: the request would have taken too long"
    return ReplayResult(id=id_, outcome="left", stored=0, duplicates=0, rejected=0, detail=detail)
