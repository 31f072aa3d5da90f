"""Finding the endpoint of a request, and the declarations of all routes of the API."""

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from api.app import application
from api.routing import ALL, NOTHING, PUBLIC, SITE, PlainRoute, RouteTable, named, needs, only_seen
from api.services import WithSight
from bridge.contract import METER, VEHICLE

API_PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
PUBLIC_PATHS = {"/", "/healthz", "/readyz", "/openapi.json", "/docs"}


async def nothing() -> None:
    """An endpoint."""


def route(path: str, method: str = "GET", declared: dict[str, object] | None = None) -> APIRoute:
    return APIRoute(path, nothing, methods=[method], openapi_extra=PUBLIC if declared is None else declared)


def test_every_route_declares_a_scope_or_is_one_of_the_public_ones() -> None:
    app = application(Response())
    endpoints = RouteTable(app.routes).endpoints()
    assert set(map(_path, app.routes)) == {endpoint.path for _, endpoint in endpoints}
    public = {endpoint.path for _, endpoint in endpoints if endpoint.access == "public"}
    assert {path for path in public if not path.startswith(("/docs/", "/page/"))} == PUBLIC_PATHS
    assert {endpoint.access for _, endpoint in endpoints} == {"public", "any key", "ingest", "read", "assign", "admin"}


def _path(found: BaseRoute) -> str:
    assert isinstance(found, APIRoute | PlainRoute)
    return found.path


def test_reads_need_read_and_writes_need_more() -> None:
    for method, endpoint in RouteTable(application(Response()).routes).endpoints():
        if endpoint.access != "admin":
            reads = endpoint.access in ("read", "public", "any key")
            assert reads == (method in ("GET", "HEAD")), (method, endpoint.path)


def test_document_names_the_scope_that_is_asked_for() -> None:
    app = application(Response())
    document = app.openapi()
    for method, endpoint in RouteTable(app.routes).endpoints():
        if endpoint.path in document["paths"] and method != "HEAD":
            operation = document["paths"][endpoint.path][method.lower()]
            roles = [] if endpoint.access == "any key" else [endpoint.access]
            expected = [] if endpoint.access == "public" else [{"apiKey": roles}]
            assert operation["security"] == expected


def test_operation_ids_are_distinct_and_a_verb_and_its_object() -> None:
    paths = application(Response()).openapi()["paths"]
    ids = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    verbs = "get|list|put|patch|delete|import|ingest|create|rotate|revoke|stream|acknowledge|replay"
    assert not [id_ for id_ in ids if not re.fullmatch(rf"({verbs})([A-Z][a-z]+)+", id_)]


def test_summary_of_every_documented_route_is_written_and_not_made_from_a_function_name() -> None:
    app = application(Response())
    documented = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    assert [route.path for route in documented if not route.summary] == []
    for operations in app.openapi()["paths"].values():
        for operation in operations.values():
            assert re.fullmatch(
                r"(Get|List|Check|Assign|Change|Remove|Import|Declare|Store|Create|Rotate|Revoke|Stream|Acknowledge|Replay)"
                r" [^.]+",
                operation["summary"],
            )


@pytest.mark.parametrize(
    "undeclared",
    [
        route("/x", declared={}),
        route("/x", declared={"security": [{"apiKey": ["root"]}]}),
        route("/x", declared={"security": [{"apiKey": []}]}),
        route("/x", declared=needs("read")),
        route("/x", "POST", declared=needs("ingest")),
        Route("/x", nothing),
        Mount("/x", Response()),
    ],
)
def test_route_that_does_not_say_who_may_call_it_is_refused(undeclared: BaseRoute) -> None:
    with pytest.raises(ValueError, match="/x"):
        RouteTable([route("/y"), undeclared])


async def seeing(sight: WithSight, site: str = "", vehicle: str = "") -> None:
    """An endpoint that answers what the key sees."""


async def deeply(seen: Annotated[None, Depends(seeing)]) -> None:
    """An endpoint that does so through another dependency."""


async def of_device(vehicleId: str, other: str = "") -> None:  # noqa: N803
    """An endpoint about one vehicle."""


@pytest.mark.parametrize(
    ("path", "endpoint", "declared", "reason"),
    [
        ("/x", nothing, needs("read"), "does not declare what a limited key gets"),
        ("/x", nothing, needs("any key"), "does not declare what a limited key gets"),
        ("/x", nothing, needs("read", only_seen()), "WithSight"),
        ("/x", seeing, needs("read", ALL), "vehicle names a vehicle|site names a site"),
        ("/x", seeing, needs("read", only_seen(site=SITE)), "vehicle names a vehicle"),
        ("/x", seeing, needs("read", only_seen(site=SITE, vehicle=METER)), "vehicle names a vehicle"),
        ("/x", seeing, needs("read", named(site=SITE, vehicle=VEHICLE)), "WithSight"),
        ("/x", nothing, needs("read", named()), "no parameter names a device"),
        ("/x/{vehicleId}", of_device, needs("read", named(other=VEHICLE)), "vehicleId names a vehicle"),
        ("/x/{vehicleId}", of_device, needs("read", named(vehicleId=VEHICLE, id=VEHICLE)), "id is no parameter"),
    ],
)
def test_route_that_does_not_respect_the_limit_of_a_key_is_refused(
    path: str, endpoint: Any, declared: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        RouteTable([APIRoute(path, endpoint, openapi_extra=declared)])


@pytest.mark.parametrize(
    ("path", "endpoint", "declared"),
    [
        ("/x", nothing, needs("read", ALL)),
        ("/x", seeing, needs("read", NOTHING)),
        ("/x", seeing, needs("read", only_seen(site=SITE, vehicle=VEHICLE))),
        ("/x", deeply, needs("read", only_seen(site=SITE, vehicle=VEHICLE))),
        ("/x/{vehicleId}", of_device, needs("read", named(vehicleId=VEHICLE))),
        ("/x", nothing, needs("assign")),
    ],
)
def test_route_that_respects_the_limit_of_a_key_is_accepted(
    path: str, endpoint: Any, declared: dict[str, object]
) -> None:
    ((_, found), *_) = RouteTable([APIRoute(path, endpoint, openapi_extra=declared)]).endpoints()
    assert found.limited.gets == declared.get("x-limited-keys", {"get": "nothing"})["get"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("one", "other"), [("/a/{x}", "/a/b"), ("/a/{x}", "/a/{y}"), ("/{x}/b", "/a/{y}"), ("/a/{x}/c", "/{y}/b/c")]
)
def test_paths_that_could_be_taken_for_each_other_are_refused(one: str, other: str) -> None:
    with pytest.raises(ValueError, match="same path"):
        RouteTable([route(one), route(other)])


def test_path_that_is_declared_before_a_template_is_found_by_every_method() -> None:
    table = RouteTable([route("/a/b"), route("/a/{x}", "DELETE"), route("/a/{y}/c")])
    assert table.find("DELETE", "/a/b") == (None, ("GET", "HEAD"))
    assert [found.path for method, path in (("GET", "/a/b"), ("DELETE", "/a/c"), ("GET", "/a/b/c"))
            if (found := table.find(method, path).endpoint)] == ["/a/b", "/a/{x}", "/a/{y}/c"]  # fmt: skip


def test_parameter_that_may_hold_slashes_is_refused() -> None:
    with pytest.raises(ValueError, match="one segment"):
        RouteTable([route("/a/{x:path}")])


def test_endpoint_is_found_by_path_and_method() -> None:
    table = RouteTable([route("/a"), route("/a", "POST", needs("assign")), route("/a/{x}")])
    assert [table.find(method, "/a").endpoint is not None for method in ("GET", "HEAD", "POST", "PUT")] == [
        *(True, True, True, False)
    ]
    assert table.find("POST", "/a").endpoint == dict(table.endpoints())["POST"]
    assert table.find("PUT", "/a").methods == ("GET", "HEAD", "POST")
    found = table.find("GET", "/a/b").endpoint
    assert found is not None
    assert found.path == "/a/{x}"
    for path in ("/a/", "/a/b/", "/a/b/c", "a", "", "/", "/b", "/a\n"):
        assert table.find("GET", path) == (None, ())


def test_query_parameters_are_those_that_the_route_declares() -> None:
    router = APIRouter()

    @router.get("/a", openapi_extra=PUBLIC)
    async def declared(
        one: str, many: Annotated[list[str] | None, Query()] = None, start: Annotated[str, Query(alias="from")] = ""
    ) -> None:
        """An endpoint."""

    endpoint = RouteTable(router.routes).find("GET", "/a").endpoint
    assert endpoint is not None
    assert endpoint.query == {"one": False, "many": True, "from": False}


def test_operation_ids_are_listed_in_the_documentation() -> None:
    paths = application(Response()).openapi()["paths"]
    ids = {operation["operationId"] for operations in paths.values() for operation in operations.values()}
    listed = re.findall(r"^    (\w+) +\w+$", API_PAGE.read_text(), re.MULTILINE)
    assert sorted(ids) == listed, "run scripts/generate-clients and put its output into docs/api.md"
