"""The table of routes that the layers use: the declarations of a route, found by method and path.

Each route declares its scope next to its path, as `openapi_extra=needs("read", ...)` or `openapi_extra=PUBLIC`. This is
also the `security` of its part of the OpenAPI document, so document and check cannot differ. Next to the scope it
declares what a key gets that is limited to devices or sites (`api.sight`): see `Limited`. A route without these
declarations, or with a path that also matches another route, is refused at start.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple, TypeAlias, get_args, get_origin

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Scope

from api import auth
from api.body import MAX_FORM_BYTES
from api.keys import LIMITABLE, SCOPES
from api.services import services_of_figures, sight_of_caller
from bridge.contract import KINDS, Kind

Access: TypeAlias = auth.Scope | Literal["public", "any key"]
"""Who may call a route: keys with this scope, every client, or every valid key."""

PUBLIC: dict[str, Any] = {"security": []}
SITE = "site"
"""What a parameter names that is not a device."""
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Limited:
    """What a limited key gets from a route.

    The parameters of path and query in `names` name devices of a kind, or sites: a request that names one that the key
    does not see is refused with 403 before the route is called, whether it exists or not.
    """

    gets: Literal["named", "seen", "all", "nothing"]
    """What the request names, and nothing about others; what the key sees, of a list; everything, because nothing of it
    is about a device; 403."""
    names: Mapping[str, str]

    def declared(self) -> dict[str, Any]:
        """The part of the OpenAPI document."""
        return {"x-limited-keys": {"get": self.gets, "names": dict(self.names)}}


ALL = Limited("all", {})
NOTHING = Limited("nothing", {})


def named(**parameters: Kind | str) -> Limited:
    """The route is about the devices that these parameters name, and about nothing else."""
    return Limited("named", _names(parameters))


def only_seen(**parameters: Kind | str) -> Limited:
    """The route answers what the key sees: it depends on `services.WithSight`. These parameters narrow that."""
    return Limited("seen", _names(parameters))


def _names(parameters: Mapping[str, Kind | str]) -> dict[str, str]:
    return {name: of.name if isinstance(of, Kind) else of for name, of in parameters.items()}


def needs(scope: auth.Scope | Literal["any key"], limited: Limited | None = None) -> dict[str, Any]:
    """The declaration of a route that requires a key with this scope (OpenAPI 3.1: a role of the scheme).

    Limited keys cannot have the scopes assign and admin, so routes with these declare nothing, and refuse them anyway.
    """
    roles = [] if scope == "any key" else [scope]
    return {"security": [{"apiKey": roles}]} | (limited.declared() if limited is not None else {})


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
    limited: Limited
    pattern: re.Pattern[str]
    """Of the path."""
    query: Mapping[str, bool]
    """The declared query parameters, and whether each may be repeated."""
    body_limit: int | None
    """The largest body in bytes; None where no body is read before the endpoint is called."""
    plain: ASGIApp | None
    """The application of a route outside the framework."""
    is_endless: bool
    """Whether the answer has no end of its own."""
    is_of_figures: bool
    """Whether the answer may take seconds to compute."""


class Found(NamedTuple):
    """The endpoint of a request, or the methods of the path if there is none."""

    endpoint: Endpoint | None
    methods: tuple[str, ...]


UNKNOWN_PATH = Found(None, ())
FOUND = "fleet.found"
"""The key of `Found` in the scope of a request."""


def path_of(scope: Scope) -> str:
    """The path of a request as the routes have it: behind a prefix, a server may pass the prefix in root_path, too."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


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
        operation = route.openapi_extra or {}
        declared = access(operation)
        found = limited(operation)
        if declared in (*LIMITABLE, "any key"):
            _refuse_careless(route, found)
    except ValueError as error:
        raise ValueError(f"{method} {route.path}: {error}") from None
    return Endpoint(
        route.path,
        declared,
        found or NOTHING,
        route.path_regex,
        _query(route) if isinstance(route, APIRoute) else {},
        None if plain or method in _BODILESS else getattr(route, "body_limit", MAX_FORM_BYTES),
        route.app if plain else None,
        getattr(getattr(route, "response_class", None), "is_endless", False),
        isinstance(route, APIRoute) and _depends_on(route.dependant, services_of_figures),
    )


def access(operation: Mapping[str, Any]) -> Access:
    """The access that an operation of the OpenAPI document declares. Raises `ValueError` when it declares none."""
    declared = operation.get("security")
    if declared == PUBLIC["security"]:
        return "public"
    roles: tuple[auth.Scope | Literal["any key"], ...] = (*SCOPES, "any key")
    for scope in roles:
        if declared == needs(scope)["security"]:
            return scope
    raise ValueError("the route declares neither a scope nor that it is public")


def limited(operation: Mapping[str, Any]) -> Limited | None:
    """What an operation of the OpenAPI document declares for limited keys, if anything."""
    declared = operation.get("x-limited-keys")
    return None if declared is None else Limited(declared["get"], declared["names"])


_NAMES_OF_DEVICES = {name: kind.name for kind in KINDS for name in (kind.id_field, kind.name)} | {SITE: SITE}
"""The parameters that name devices and sites wherever they are used."""


def _refuse_careless(route: APIRoute | PlainRoute, found: Limited | None) -> None:
    """Raise `ValueError` for a route that a limited key may call and that does not respect the limit."""
    if found is None:
        raise ValueError("the route does not declare what a limited key gets")
    if isinstance(route, PlainRoute) or found.gets == "nothing":
        return
    parameters = {field.alias for field in get_flat_params(route.dependant)}
    if unknown := found.names.keys() - parameters:
        raise ValueError(f"limited keys: {', '.join(sorted(unknown))} is no parameter of the route")
    for name in parameters & _NAMES_OF_DEVICES.keys():
        if found.names.get(name) != _NAMES_OF_DEVICES[name]:
            raise ValueError(f"limited keys: the route does not declare that {name} names a {_NAMES_OF_DEVICES[name]}")
    if (found.gets == "seen") != _depends_on(route.dependant, sight_of_caller):
        raise ValueError("limited keys: a route depends on WithSight if it answers what the key sees, and only then")
    if (found.gets == "named") and not found.names:
        raise ValueError("limited keys: no parameter names a device")


def _depends_on(dependant: Dependant, call: Callable[..., object]) -> bool:
    return any(each.call is call or _depends_on(each, call) for each in dependant.dependencies)


def _query(route: APIRoute) -> dict[str, bool]:
    fields = [field for field in get_flat_params(route.dependant) if isinstance(field.field_info, Query)]
    return {field.alias: _is_list(field.field_info.annotation) for field in fields}


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) in (list, set, tuple) or any(map(_is_list, get_args(annotation)))


def _refuse_ambiguous(paths: Iterable[str]) -> None:
    """Raise `ValueError` if a path could match two templates, because the order of declaration would then matter.

    A path without parameters that is declared before such a template is found first by this table and the framework.
    """
    for one, other in combinations(paths, 2):
        pairs = list(zip(one.split("/"), other.split("/"), strict=False))
        if "{" in one and one.count("/") == other.count("/") and all(a == b or "{" in a + b for a, b in pairs):
            raise ValueError(f"{one} and {other} can match the same path")
    if converted := next((path for path in paths if re.search(r"{\w+:", path)), None):
        raise ValueError(f"{converted}: a parameter is one segment")
