"""The layers between server and endpoint: small ASGI applications, each around the next.

`app.layered` is the ordered list of them. No route can be reached without them. A layer may answer by raising a
`Problem`, which `Errors` sends. A layer that only inspects the request returns the awaitable of the next one instead of
being a coroutine, because every POST of a reading passes all of them.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeAlias

from starlette.types import ASGIApp

Layer: TypeAlias = Callable[[ASGIApp], ASGIApp]


def around(endpoints: ASGIApp, layers: Sequence[Layer]) -> ASGIApp:
    """The layers around `endpoints`, the first one outermost."""
    return reduce(lambda inner, layer: layer(inner), reversed(layers), endpoints)
