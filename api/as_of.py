"""The parameter `asOf` of questions, and what such a request reads from."""

from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic_core import PydanticCustomError

from api.period import parse_instant
from api.problems import invalid
from api.replicas.position import AsOf, Position
from api.replicas.reading import READING, Reading
from api.routing import FOUND, Found
from api.services import Services

_AsOf = Annotated[
    str | None,
    Query(
        alias="asOf",
        max_length=64,
        description="What the answer must contain: everything that was stored at this time, such as the `X-As-Of` of "
        "an earlier answer, or the `X-Position` of the answer to a write.",
        examples=["2026-02-10T10:15:00Z"],
    ),
]


async def _reading(request: Request, as_of: _AsOf = None) -> Reading:
    found: Found = request.scope[FOUND]
    state = request.app.state
    is_of_figures = found.endpoint is not None and found.endpoint.is_of_figures
    services: Services = state.services_of_figures if is_of_figures else state.services
    reading: Reading = getattr(request.state, READING, None) or Reading(services.pool)
    if as_of is not None:
        reading.wanted = _parse(as_of)
    return reading


def _parse(text: str) -> AsOf:
    """Raises 422."""
    if (position := Position.parse(text)) is not None:
        return position
    try:
        return parse_instant(text)
    except PydanticCustomError:
        raise invalid("asOf", "should be RFC 3339 with an offset, or the X-Position of an answer") from None


WithReading = Annotated[Reading, Depends(_reading)]
"""Where the answer to the request is read: a route of live states, history or figures depends on it."""
