"""The route of the live stream."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import bearer_token
from api.negotiation import accepts_coding
from api.patterns import TEXT_PATTERN
from api.period import CommaSeparated
from api.routing import SITE, needs, only_seen
from api.services import Caller, Services, WithServices, WithSight
from api.sight import Sight
from api.stream.coding import Deflate, Plain
from api.stream.filters import Filter
from api.stream.response import EventStream
from bridge.contract import KINDS
from bridge.errors import StoreUnavailable
from bridge.reading import DEVICE_ID_PATTERN

router = APIRouter(prefix="/v1/live", tags=["live"])

_MOST_IDS = 200
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `snapshot`, `changes`, `database` and `alarm`, each with a JSON object as its data; "
        "heartbeats are comments",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
}

Ids = Annotated[
    list[Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]],
    CommaSeparated,
    Query(max_length=_MOST_IDS, description="Only these devices, repeated or separated by commas."),
]
Site = Annotated[
    str | None, Query(max_length=200, pattern=TEXT_PATTERN, description="Devices that are declared at this site.")
]


@router.get(
    "/stream",
    operation_id="streamLive",
    summary="Stream the latest states of devices",
    openapi_extra=needs("read", only_seen(site=SITE)),
    response_class=EventStream,
    status_code=200,
    responses=_RESPONSES,
)
async def stream(
    request: Request,
    services: WithServices,
    caller: Caller,
    sight: WithSight,
    kind: Annotated[Literal["vehicles", "meters"] | None, Query(description="Devices of this kind.")] = None,
    site: Site = None,
    ids: Ids = [],  # noqa: B006
    last_event_id: Annotated[
        str, Header(alias="Last-Event-ID", description="The `id` of the last event that was received.")
    ] = "",
) -> Response:
    """Server-sent events: a snapshot, then each second what has changed. With the `Last-Event-ID` of an earlier
    connection, only what has changed since."""
    wanted = next((each for each in KINDS if each.plural == kind), None)
    watched = Filter(wanted, site, frozenset(ids) if ids else None, sight)
    token = bearer_token(request.headers.get("authorization", "")) or ""
    return EventStream(
        services.streams,
        watched,
        caller,
        last_event_id,
        Deflate() if accepts_coding(request.headers.get("accept-encoding", ""), Deflate.name) else Plain(),
        services.settings.stream_heartbeat_s,
        lambda: _is_valid(services, token, sight),
    )


async def _is_valid(services: Services, token: str, sight: Sight) -> bool:
    """Whether the key may still read the same. While the database is unavailable, the stream goes on."""
    try:
        key, _ = await services.keyring.verify(token)
    except StoreUnavailable:
        return True
    return key is not None and key.holds("read") and key.sight == sight
