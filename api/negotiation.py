"""What of a response the client chooses: the media type, JSON or CSV, and the coding (RFC 9110, section 12.5)."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Request

from api.problems import Problem

MediaType = Literal["application/json", "text/csv"]
CSV_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
    406: {"description": "Neither JSON nor CSV is accepted"},
}
"""What such an operation adds to its JSON response in the OpenAPI document."""


def negotiate(accept: str) -> MediaType:
    """The media type that the client prefers, JSON by default. Raises 406."""
    best: tuple[float, MediaType] = (0.0, "application/json")
    forms: tuple[MediaType, ...] = ("application/json", "text/csv")
    for form in forms:
        quality = _quality(accept, form)
        if quality > best[0]:
            best = (quality, form)
    if best[0] <= 0:
        raise Problem(406, "the response is available as application/json and text/csv")
    return best[1]


def _quality(accept: str, form: str) -> float:
    """The quality value of a media type: that of the most specific matching range."""
    ranges = (form, form.split("/")[0] + "/*", "*/*")
    found = (-1, 0.0)
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if name in ranges:
            found = max(found, (2 - ranges.index(name), _q(parameters)))
    return found[1]


def _q(parameters: list[str]) -> float:
    try:
        return next((float(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    except ValueError:
        return 0.0


def accepts_coding(accept_encoding: str, name: str) -> bool:
    """Whether the client can decode a content coding. Without the header it is not asked to."""
    qualities: dict[str, float] = {}
    for entry in accept_encoding.split(","):
        coding, *parameters = (part.strip().lower() for part in entry.split(";"))
        qualities[coding] = _q(parameters)
    return qualities.get(name, qualities.get("*", 0.0)) > 0


async def _asked(request: Request) -> MediaType:
    return negotiate(request.headers.get("accept", "*/*"))


AskedMediaType = Annotated[MediaType, Depends(_asked)]
