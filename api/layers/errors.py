"""Converts every error of a request to a problem document (RFC 9457)."""

from http import HTTPStatus

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.body import Disconnected
from api.problems import Problem, internal_error, outage, unavailable
from bridge.errors import StoreUnavailable

log = structlog.get_logger(__name__)


class Errors:
    """Answers with a problem, unless a response has begun: the server then closes the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
            return
        except Disconnected:
            return
        except Exception as error:
            # Without its traceback, whose frames have the body of the request and would be in a cycle with this one.
            problem = _problem(scope, _original(error)).with_traceback(None)
        if not begun:
            await problem.response()(scope, receive, send)
        elif problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:  # Errors of the server are logged already.
            log.warning("response aborted", path=scope["path"], reason=problem.detail)


def _original(error: Exception) -> Exception:
    """The error of an endpoint. The framework raises another one from it when the response has begun."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Problem | StoreUnavailable) else error


def _problem(scope: Scope, error: Exception) -> Problem:
    """The problem for an error; errors of the server are logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, StoreUnavailable):
        log.warning("database unavailable", path=scope["path"], reason=str(error))
        return outage(error)
    if isinstance(error, TimeoutError):
        log.warning("request timed out", path=scope["path"])
        return unavailable("the response was not ready in time")
    log.error("request failed", method=scope["method"], path=scope["path"], exc_info=error)
    return internal_error()
