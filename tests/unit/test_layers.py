"""Each layer alone, around a small ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.layers import Layer, around
from api.layers.deadline import Deadline
from api.layers.errors import Errors
from api.layers.head import Head
from api.layers.headers import Headers
from api.layers.metrics import Metrics
from api.layers.queries import nearest, refuse_unknown
from api.layers.routes import Endpoints, Routes
from api.layers.turns import Questions
from api.problems import Problem
from api.routing import PUBLIC, PlainRoute, RouteTable
from bridge.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


def request(method: str = "GET", path: str = "/x", **changes: Any) -> Scope:
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [], "scheme": "http"}
    return {**scope, **changes}


async def ask(app: ASGIApp, scope: Scope, send: Callable[[Message], Awaitable[None]] | None = None) -> list[Message]:
    """The messages that the application sends; `send` may slow it down."""
    sent: list[Message] = []

    async def receive() -> Message:
        return await asyncio.Future()

    async def keep(message: Message) -> None:
        if send is not None:
            await send(message)
        sent.append(message)

    await app(scope, receive, keep)
    return sent


def raising(error: Exception) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


async def pieces(count: int, each_s: float) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(each_s)
        yield b"x"


def marking(name: str) -> Layer:
    def layer(app: ASGIApp) -> ASGIApp:
        async def marked(scope: Scope, receive: Receive, send: Send) -> None:
            scope["passed"].append(name)
            await app(scope, receive, send)

        return marked

    return layer


async def test_layers_are_passed_in_the_order_of_their_list() -> None:
    scope = request(passed=[])
    await ask(around(Response(), [marking("outer"), marking("inner")]), scope)
    assert scope["passed"] == ["outer", "inner"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(Problem(418, "tea"), 418), (StoreUnavailable("away"), 503), (TimeoutError(), 503), (RuntimeError("secret"), 500)],
)
async def test_error_becomes_a_problem(error: Exception, status: int) -> None:
    start, body = await ask(Errors(raising(error)), request())
    assert start["status"] == status
    assert b"secret" not in body["body"]


async def test_error_in_the_middle_of_an_answer_adds_nothing_to_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Problem(418, "too late")

    assert [message["type"] for message in await ask(Errors(app), request())] == ["http.response.start"]


async def test_answer_that_says_something_itself_keeps_it() -> None:
    own = Response(headers={"Cache-Control": "max-age=60"})
    (start, _) = await ask(Headers(own), request(scheme="https"))
    headers = dict(start["headers"])
    assert headers[b"cache-control"] == b"max-age=60"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"max-age" in headers[b"strict-transport-security"]


async def test_answer_that_takes_too_long_to_begin_is_given_up() -> None:
    late = StreamingResponse(pieces(1, each_s=5))
    with pytest.raises(TimeoutError):
        await ask(Deadline(late, timeout_s=0.05), request())


async def test_stream_may_take_longer_than_the_time_limit() -> None:
    slow = StreamingResponse(pieces(5, each_s=0.05))
    sent = await ask(Deadline(slow, timeout_s=0.15), request())
    assert sum(len(message.get("body", b"")) for message in sent) == 5


async def test_reader_that_takes_nothing_of_a_stream_is_given_up() -> None:
    async def stuck(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(5)

    endless = StreamingResponse(pieces(1_000, each_s=0))
    with pytest.raises(TimeoutError):
        await ask(Deadline(endless, timeout_s=0.05), request(), stuck)


async def test_last_piece_of_a_stream_has_the_limit_too() -> None:
    async def stuck_at_the_end(message: Message) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await ask(Deadline(StreamingResponse(pieces(2, 0)), timeout_s=0.05), request(), stuck_at_the_end)


async def test_labels_of_metrics_are_templates_and_nothing_that_a_client_invents() -> None:
    registry = CollectorRegistry()
    table = RouteTable([PlainRoute("GET", "/x/{id}", PlainTextResponse("x"), PUBLIC)])
    app = Routes(Metrics(Errors(Endpoints(Response())), registry), table)
    for scope in (request(path="/x/1"), request(path="/x/2"), request(path="/y"), request("BREW", "/x/1")):
        await ask(app, scope)
    series = {
        (sample.labels["route"], sample.labels["method"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "fleet_http_request_seconds_count"
    }
    assert series == {("/x/{id}", "GET"): 2, ("unmatched", "any"): 2}


async def test_duration_of_a_live_stream_is_not_the_time_of_a_request() -> None:
    registry = CollectorRegistry()
    stream = StreamingResponse(pieces(2, 0), media_type="text/event-stream")
    table = RouteTable([PlainRoute("GET", "/stream", stream, PUBLIC), PlainRoute("GET", "/x", Response(), PUBLIC)])
    app = Routes(Metrics(Endpoints(Response()), registry), table)
    for path in ("/stream", "/x"):
        await ask(app, request(path=path))
    assert registry.get_sample_value("fleet_stream_seconds_count") == 1
    routes = {s.labels["route"] for m in registry.collect() for s in m.samples if "route" in s.labels}
    assert routes == {"/x"}


async def test_path_prefix_of_the_server_is_not_part_of_the_path() -> None:
    table = RouteTable([PlainRoute("GET", "/x", PlainTextResponse("x"), PUBLIC)])
    app = Routes(Endpoints(Response()), table)
    start, _ = await ask(app, request(path="/fleet/x", root_path="/fleet"))
    assert start["status"] == 200
    with pytest.raises(Problem):
        await ask(app, request(path="/x/x", root_path="/fleet"))


def refusal(query: str, declared: dict[str, bool]) -> list[dict[str, str]]:
    """The errors of the problem that a query is."""
    with pytest.raises(Problem) as caught:
        refuse_unknown(query, declared)
    assert caught.value.status == 422
    errors: list[dict[str, str]] = caught.value.members["errors"]
    return errors


def test_declared_parameters_pass() -> None:
    refuse_unknown("", {})
    refuse_unknown("from=1&id=a&id=b&empty=", {"from": False, "id": True, "empty": False})
    refuse_unknown("%66rom=1", {"from": False})


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("From", ["to", "from"], "from"),
        ("start", ["from", "to", "limit"], "from"),
        ("timezone", ["from", "to", "tz"], "tz"),
        ("limt", ["cursor", "limit"], "limit"),
        ("vehicleId", ["meter", "vehicle", "at"], "vehicle"),
        ("NeverReported", ["site", "neverReported"], "neverReported"),
        ("tz", ["from", "to"], None),
        ("timezone", ["from", "to"], None),
        ("", ["limit"], None),
    ],
)
def test_nearest_parameter(name: str, known: list[str], expected: str | None) -> None:
    assert nearest(name, known) == expected


def test_each_fault_of_a_query_is_named_and_the_list_is_short() -> None:
    errors = refusal("From=1&limit=1&limit=2", {"from": False, "limit": False})
    assert [error["field"] for error in errors] == ["From", "limit"]
    assert len(refusal("&".join(f"p{n}=" for n in range(5_000)), {"from": False})) == 10
    assert refusal("x=1", {})[0]["reason"] == "unknown parameter; this path has none"


async def test_head_ends_the_answer_after_its_headers() -> None:
    made = []

    async def list_of_pages() -> AsyncIterator[bytes]:
        made.append(1)
        yield b"x"

    start, end = await ask(Head(StreamingResponse(list_of_pages(), headers={"X-A": "b"})), request("HEAD"))
    assert (b"x-a", b"b") in start["headers"]
    assert (end["body"], end.get("more_body", False)) == (b"", False)
    assert not made


async def test_endpoint_is_asked_as_for_get_and_other_methods_pass() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["method"])(scope, receive, send)

    start, _ = await ask(Head(app), request("HEAD"))
    assert dict(start["headers"])[b"content-length"] == b"3"
    _, body = await ask(Head(app), request("POST"))
    assert body["body"] == b"POST"


async def test_requests_without_a_key_leave_the_event_loop_to_others_between_them() -> None:
    """1,000 that arrived at a time were answered in one iteration, in which others waited for 1.3 s."""
    served: list[str] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        served.append("document")

    async def nothing() -> None: ...

    async def other() -> None:
        while len(served) < 200:
            served.append("other")
            await asyncio.sleep(0)

    table = RouteTable([APIRoute("/x", nothing, methods=["GET"], openapi_extra=PUBLIC)])
    app = Routes(Questions(answer, 6), table)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(50):
            tasks.create_task(ask(app, request()))
        tasks.create_task(other())
    assert served.count("document") == 50
    assert ["document", "document"] not in [list(pair) for pair in pairwise(served)]
