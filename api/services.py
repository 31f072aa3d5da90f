"""The services that the routes use, as FastAPI dependencies."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from api.auth import ApiKey
from api.database import Pool
from api.keyring import Keyring
from api.remembered import Remembered
from api.sight import Sight
from bridge.clock import Clock
from bridge.settings.api import ApiSettings
from bridge.streams.publishing import Publisher

if TYPE_CHECKING:
    from api.stream.hub import Hub  # which needs models whose parameters need this module


@dataclass(frozen=True, slots=True)
class Services:
    """Created once, when the process starts."""

    settings: ApiSettings
    pool: Pool
    """Connections of the database: in `WithFigures` others, so that figures leave these to what is answered at once."""
    registry: CollectorRegistry
    keyring: Keyring
    streams: "Hub"
    clock: Clock
    publisher: Publisher | None
    """Publishes what HTTP brings, if it goes into a stream."""
    replaying: asyncio.Lock
    """Held by the request that replays rejected messages."""
    remembered: Remembered
    """Answers that many viewers ask for."""


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def services_of_figures(request: Request) -> Services:
    """The services of a route that may compute for seconds. Its requests wait for turns of their own, too."""
    services: Services = request.app.state.services_of_figures
    return services


async def _caller(request: Request) -> ApiKey:
    key: ApiKey = request.state.key
    return key


async def sight_of_caller(request: Request) -> Sight:
    """What the key of the request sees. A route of lists depends on it (`routing.only_seen`)."""
    key: ApiKey = request.state.key
    return key.sight


WithServices = Annotated[Services, Depends(_services)]
WithFigures = Annotated[Services, Depends(services_of_figures)]
"""The services for a route of figures."""
Caller = Annotated[ApiKey, Depends(_caller)]
"""The key of the request."""
WithSight = Annotated[Sight, Depends(sight_of_caller)]
"""What the key of the request sees."""
