"""Counts responses by status and measures the duration of requests by route."""

import functools
import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.routing import FOUND, UNKNOWN_PATH

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STREAM_BUCKETS_S = (1.0, 10.0, 60.0, 600.0, 3_600.0, 14_400.0, 86_400.0)
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class Metrics:
    """Counts responses when they begin and measures a request when its response has ended.

    A stream of events lasts as long as its client likes, so it is not one of the requests whose time is measured.

    The labels are bounded: templates of routes and their methods, never text of a client.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        answers = Counter("fleet_http_answers", "Responses, by status.", ["status"], registry=registry)
        seconds = Histogram(
            "fleet_http_request_seconds",
            "Time from a request's headers to the end of its response, by route and method.",
            ["route", "method"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._stream_seconds = Histogram(
            "fleet_stream_seconds",
            "Duration of a live stream, when it has ended.",
            buckets=_STREAM_BUCKETS_S,
            registry=registry,
        )
        # `labels` looks its child up under a lock, which is expensive for every request.
        self._answers = functools.cache(answers.labels)
        self._seconds = functools.cache(seconds.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        answered = is_stream = False

        async def counted(message: Message) -> None:
            nonlocal answered, is_stream
            if message["type"] == "http.response.start":
                answered, is_stream = True, _EVENTS in message.get("headers", ())
                self._answers(message["status"]).inc()
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            if is_stream:
                self._stream_seconds.observe(time.perf_counter() - began)
            elif answered:
                self._seconds(*_labels(scope)).observe(time.perf_counter() - began)


def _labels(scope: Scope) -> tuple[str, str]:
    endpoint = scope.get(FOUND, UNKNOWN_PATH).endpoint
    return ("unmatched", "any") if endpoint is None else (endpoint.path, scope["method"])
