"""Refuses a limited key what it does not see, by the declaration of the route (`routing.Limited`)."""

from collections.abc import Awaitable
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import ApiKey
from api.database import Pool
from api.problems import Problem
from api.routing import FOUND, Endpoint, Found, path_of
from api.seen import refuse_unseen
from api.sight import Sight


class Sights:
    """Raises 403 for a route that is closed to limited keys, and for a device or site that the key does not see.

    A request with an unlimited key costs nothing here.
    """

    def __init__(self, app: ASGIApp, pool: Pool) -> None:
        self._app = app
        self._pool = pool

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found: Found = scope[FOUND]
        key: ApiKey | None = scope.get("state", {}).get("key")
        if key is None or found.endpoint is None or not key.sight.is_limited:
            return self._app(scope, receive, send)
        return self._checked(found.endpoint, key.sight, scope, receive, send)

    async def _checked(self, endpoint: Endpoint, sight: Sight, scope: Scope, receive: Receive, send: Send) -> None:
        if endpoint.limited.gets == "nothing":
            raise Problem(403, "this path is closed to API keys that are limited to devices or sites")
        given = _parameters(endpoint, scope)
        for name, kind in endpoint.limited.names.items():
            values = [value for parameter, value in given if parameter == name]
            await refuse_unseen(self._pool, sight, name, kind, values)
        await self._app(scope, receive, send)


def _parameters(endpoint: Endpoint, scope: Scope) -> list[tuple[str, str]]:
    """Names and values of the parameters of path and query."""
    match = endpoint.pattern.match(path_of(scope))
    in_path = match.groupdict().items() if match else ()
    return [*in_path, *parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)]
