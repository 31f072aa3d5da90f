"""The table of routes that the layers use: the declarations of a route, found by method and path.

Each route declares its scope next to its path, as `openapi_extra=needs("read")` or `openapi_extra=PUBLIC`. This is also
the `security` of its part of the OpenAPI document, so document and check cannot differ. A route without a declaration,
or with a path that also matches another route, is refused at start.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple, TypeAlias, get_args, get_origin

from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from api import auth
from api.body import MAX_FORM_BYTES
from api.keys import SCOPES

Access: TypeAlias = auth.Scope | Literal["public"]
"""Who may call a route: keys with this scope, or every client."""

PUBLIC: dict[str, Any] = {"security": []}
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


def needs(scope: auth.Scope) -> dict[str, Any]:
    """The declaration of a route that requires a key with this scope (OpenAPI 3.1: a role of the scheme)."""
    return {"security": [{"apiKey": [scope]}]}


class PlainRoute(Route):
    """A route outside the framework. `endpoint` is an object that is called as ASGI and reads its own body."""

    def __init__(self, method: str, path: str, endpoint: ASGIApp, operation: Mapping[str, Any]) -> None:
        super().__init__(path, endpoint=endpoint, methods=[method])
        self.openapi_extra = dict(operation)
        """The route's whole part of the OpenAPI document."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a route."""

    path: str
    """The template: `/v1/live/vehicles/{vehicleId}`."""
    access: Access
    query: Mapping[str, bool]
    """The declared query parameters, and whether each may be repeated."""
    body_limit: int | None
    """The largest body in bytes; None where no body is read before the endpoint is called."""
    plain: ASGIApp | None
    """The application of a route outside the framework."""


class Found(NamedTuple):
    """The endpoint of a request, or the methods of the path if there is none."""

    endpoint: Endpoint | None
    methods: tuple[str, ...]


UNKNOWN_PATH = Found(None, ())
FOUND = "fleet.found"
"""The key of `Found` in the scope of a request."""


class RouteTable:
    """Every endpoint by method and path. HEAD is supported where GET is."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        methods: dict[str, dict[str, Endpoint]] = {}
        patterns: dict[str, re.Pattern[str]] = {}
        for route in routes:
            if not isinstance(route, APIRoute | PlainRoute):
                raise ValueError(f"{route!r}: unsupported type of route")
            patterns[route.path] = route.path_regex
            for method in route.methods or ():
                methods.setdefault(route.path, {})[method] = _endpoint(method, route)
        _refuse_ambiguous(methods)
        found = {path: _by_method(endpoints) for path, endpoints in methods.items()}
        self._fixed = {path: found[path] for path in found if "{" not in path}
        self._templates = [(patterns[path], found[path]) for path in found if "{" in path]

    def find(self, method: str, path: str) -> Found:
        """The endpoint, or the methods of the path."""
        methods = self._fixed.get(path) or self._matching(path)
        if methods is None:
            return UNKNOWN_PATH
        return methods.get(method) or methods[""]

    def endpoints(self) -> list[tuple[str, Endpoint]]:
        """Every endpoint with its method."""
        paths = [*self._fixed.values(), *(methods for _, methods in self._templates)]
        return [(name, found.endpoint) for methods in paths for name, found in methods.items() if found.endpoint]

    def _matching(self, path: str) -> "_Methods | None":
        return next((methods for pattern, methods in self._templates if pattern.match(path)), None)


_Methods: TypeAlias = dict[str, Found]


def _by_method(endpoints: dict[str, Endpoint]) -> _Methods:
    """The result for each method of a path; the empty name has the result for all other methods."""
    if "GET" in endpoints:
        endpoints = {"HEAD": endpoints["GET"]} | endpoints
    names = tuple(sorted(endpoints))
    return {"": Found(None, names)} | {name: Found(endpoint, names) for name, endpoint in endpoints.items()}


def _endpoint(method: str, route: APIRoute | PlainRoute) -> Endpoint:
    plain = isinstance(route, PlainRoute)
    try:
        declared = access(route.openapi_extra or {})
    except ValueError as error:
        raise ValueError(f"{method} {route.path}: {error}") from None
    return Endpoint(
        route.path,
        declared,
        _query(route) if isinstance(route, APIRoute) else {},
        None if plain or method in _BODILESS else getattr(route, "body_limit", MAX_FORM_BYTES),
        route.app if plain else None,
    )


def access(operation: Mapping[str, Any]) -> Access:
    """The access that an operation of the OpenAPI document declares. Raises `ValueError` when it declares none."""
    declared = operation.get("security")
    if declared == PUBLIC["security"]:
        return "public"
    for scope in SCOPES:
        if declared == needs(scope)["security"]:
            return scope
    raise ValueError("the route declares neither a scope nor that it is public")


def _query(route: APIRoute) -> dict[str, bool]:
    fields = [field for field in get_flat_params(route.dependant) if isinstance(field.field_info, Query)]
    return {field.alias: _is_list(field.field_info.annotation) for field in fields}


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) in (list, set, tuple) or any(map(_is_list, get_args(annotation)))


def _refuse_ambiguous(paths: Iterable[str]) -> None:
    """Raise `ValueError` if a path could match two templates, because the order of declaration would then matter."""
    for one, other in combinations(paths, 2):
        pairs = list(zip(one.split("/"), other.split("/"), strict=False))
        if one.count("/") == other.count("/") and all(a == b or "{" in a + b for a, b in pairs):
            raise ValueError(f"{one} and {other} can match the same path")
    if converted := next((path for path in paths if re.search(r"{\w+:", path)), None):
        raise ValueError(f"{converted}: a parameter is one segment")
