"""What every route has from the layers around it, against the real process."""

import re

import httpx
import pytest
from starlette.responses import Response

from api.app import application
from api.routing import Endpoint, RouteTable
from tests.integration.api.server import assert_problem

pytestmark = pytest.mark.anyio


def endpoints(method: str) -> list[tuple[str, Endpoint]]:
    """Every route with this method: its path with the parameters filled in, and what it declares."""
    table = RouteTable(application(Response()).routes)
    return [(_filled(endpoint.path), endpoint) for name, endpoint in table.endpoints() if name == method]


def _filled(path: str) -> str:
    return re.sub(r"\{\w+\}", "X_1", path.replace("{from}", "2026-02-10T10:15:00Z"))


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "POST", "DELETE"])
async def test_every_route_refuses_parameters_that_it_does_not_declare(client: httpx.AsyncClient, method: str) -> None:
    for path, endpoint in endpoints(method):
        problem = assert_problem(await client.request(method, f"{path}?nonsense=1"), 422, "nonsense: unknown parameter")
        assert [error["field"] for error in problem["errors"]] == ["nonsense"]
        for known in endpoint.query:
            assert known in problem["detail"]


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("From", "from"), ("start", "from"), ("form", "from"), ("TO", "to"), ("end", "to"), ("tz", "to")],
)
async def test_unknown_parameter_is_told_the_nearest_known_one(
    client: httpx.AsyncClient, asked: str, nearest: str
) -> None:
    query = {asked: "2026-02-10T00:00:00Z"}
    answer = await client.get("/v1/analytics/performance/EV_1", params=query)
    assert_problem(answer, 422, f"{asked}: unknown parameter; the nearest one is {nearest} (there are from, to)")


async def test_parameter_that_is_given_twice_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/live/vehicles?limit=1&limit=2")
    assert_problem(answer, 422, "limit: is given more than once")


async def test_parameter_of_a_path_that_there_is_not_is_still_404(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v1/nothing?nonsense=1"), 404)
