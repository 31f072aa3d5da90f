"""The services that the routes use, as FastAPI dependencies."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from api.auth import ApiKey
from api.database import Pool
from bridge.settings.api import ApiSettings


@dataclass(frozen=True, slots=True)
class Services:
    """Created once, when the process starts."""

    settings: ApiSettings
    pool: Pool
    registry: CollectorRegistry


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _caller(request: Request) -> ApiKey:
    key: ApiKey = request.state.key
    return key


WithServices = Annotated[Services, Depends(_services)]
Caller = Annotated[ApiKey, Depends(_caller)]
"""The key of the request."""
