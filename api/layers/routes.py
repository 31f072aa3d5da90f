"""The first and the last layer: finding the endpoint of a request, and calling it."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem
from api.routing import FOUND, Found, RouteTable, path_of


class Routes:
    """Finds the endpoint for the other layers and the metrics; refuses nothing."""

    def __init__(self, app: ASGIApp, table: RouteTable) -> None:
        self._app = app
        self._table = table

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        scope[FOUND] = self._table.find(scope["method"], path_of(scope))
        return self._app(scope, receive, send)


class Endpoints:
    """Calls the endpoint, in the framework or outside of it. Raises 404 and 405."""

    def __init__(self, framework: ASGIApp) -> None:
        self._framework = framework

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found: Found = scope[FOUND]
        if found.endpoint is not None:
            return (found.endpoint.plain or self._framework)(scope, receive, send)
        if found.methods:
            allowed = ", ".join(found.methods)
            raise Problem(405, f"this path supports {allowed}", {"Allow": allowed})
        raise Problem(404, "unknown path")
