"""Every error of a request becomes a problem (RFC 9457)."""

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.body import Disconnected
from api.problems import Problem, internal_error, unavailable
from bridge.errors import StoreUnavailable

log = structlog.get_logger(__name__)


class Errors:
    """Answers with a problem, unless another answer has begun: the server then closes the connection."""

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
        except Disconnected:
            return
        except Exception as error:
            problem = _problem(scope, error)
            if not begun:
                await problem.response()(scope, receive, send)


def _problem(scope: Scope, error: Exception) -> Problem:
    """The problem that an error is; our own faults are logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, StoreUnavailable):
        log.warning("store unavailable", path=scope["path"], error=str(error))
        return unavailable("the store is unavailable")
    if isinstance(error, TimeoutError):
        log.warning("request timed out", path=scope["path"])
        return unavailable("the answer took too long")
    log.error("request failed", method=scope["method"], path=scope["path"], exc_info=error)
    return internal_error()
