"""What a request passes on its way to its endpoint: small ASGI applications, each around the next.

`app.layered` is the list of them, in order. No route can be reached past them. A layer may answer by raising a
`Problem`, which `Errors` sends. A layer that only looks at the request returns what the next one returns, so that it
costs no coroutine of its own: a reading's POST passes all of them.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeAlias

from starlette.types import ASGIApp

Layer: TypeAlias = Callable[[ASGIApp], ASGIApp]


def around(endpoints: ASGIApp, layers: Sequence[Layer]) -> ASGIApp:
    """The layers around `endpoints`, the first one outermost."""
    return reduce(lambda inner, layer: layer(inner), reversed(layers), endpoints)
