"""Asks the API for figures. A request is repeated until it is answered, at most for a limited time."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import httpx

from bridge.backoff import Backoff
from bridge.reading import format_timestamp
from simulator.endpoints import Api
from simulator.figures import Span
from simulator.local_time import Bucket, instant_of

Answer = dict[str, Any]
"""JSON, with its numbers as `Decimal` or `int`."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _PATIENCE_S = 0.1, 2.0, 60.0


class NoAnswer(Exception):
    """The API does not answer, or answers with an error; the text is the request and its response."""


class Questions:
    """The API's questions about the figures of a device."""

    def __init__(self, client: httpx.AsyncClient, api: Api) -> None:
        self._client, self._api = client, api

    async def performance(self, vehicle: str, period: Span) -> Answer:
        """`/v1/analytics/performance/{vehicleId}`."""
        return await self._get(f"/v1/analytics/performance/{vehicle}", _bounds(period))

    async def energy(
        self, of: str, device: str, period: Span, bucket: Bucket | None = None, tz: str = "UTC"
    ) -> list[Answer]:
        """The items of `/v1/analytics/energy` of one device; without a bucket its total."""
        asked = {"of": of, "id": device, "bucket": bucket or "total", "tz": tz, **_bounds(period)}
        return await self._items("/v1/analytics/energy", asked)

    async def sessions(self, by: str, device: str, period: Span) -> list[Answer]:
        """The items of `/v1/sessions` of a vehicle or a meter."""
        return await self._items("/v1/sessions", {by: device, **_bounds(period)})

    async def _items(self, path: str, asked: dict[str, str]) -> list[Answer]:
        """The items of all pages."""
        found: list[Answer] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self._get(path, asked | cursor)
            found += page["items"]
            if page["nextCursor"] is None:
                return found
            cursor = {"cursor": page["nextCursor"]}

    async def _get(self, path: str, asked: dict[str, str]) -> Answer:
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        url = f"{self._api.url}{path}"
        failure = ""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    try:
                        response = await self._client.get(url, params=asked, headers=self._api.headers)
                    except httpx.TransportError as error:
                        failure = f"{type(error).__name__}: {error}"
                    else:
                        if response.is_success:
                            answer: Answer = json.loads(response.content, parse_float=Decimal)
                            return answer
                        failure = f"{response.status_code} {response.text[:500]}"
                        if not (response.is_server_error or response.status_code == 429):
                            break
                    await asyncio.sleep(backoff.next())
        except TimeoutError:
            pass
        raise NoAnswer(f"GET {url} {asked}: {failure}")


def _bounds(period: Span) -> dict[str, str]:
    return {"from": format_timestamp(instant_of(period.start)), "to": format_timestamp(instant_of(period.end))}
