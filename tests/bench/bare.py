"""The reference for the API, a separate process: `python -m tests.bench.bare route|canned PORT`.

`route` is a FastAPI route that validates the same body by the same limits under the same uvicorn settings and stores
nothing. `canned` answers every request with the same bytes, so that the limit of the load generator can be measured.
"""

import asyncio
import sys
from typing import Annotated, Any, cast

import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, create_model

from api.server import configured
from bridge import memory
from bridge.contract import VEHICLE
from bridge.health import listen
from bridge.reading import Id, Timestamp
from bridge.settings.api import ApiSettings

_RECEIPT = {"stored": 1, "duplicates": 0, "rejected": []}
_BODY = b'{"stored":1,"duplicates":0,"rejected":[]}'
_CANNED = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY


def _model() -> type[BaseModel]:
    """A pydantic model with the limits of a vehicle's reading, as a FastAPI route would have."""
    fields: dict[str, Any] = {VEHICLE.id_field: Id, "timestamp": Timestamp}
    for measure in VEHICLE.measures:
        if measure.example is not None:
            limits = Field(ge=measure.least, le=measure.most, allow_inf_nan=False, strict=True)
            fields[measure.name] = Annotated[float, limits]
    return create_model("Vehicle", __config__=ConfigDict(extra="allow"), **fields)


def _application() -> FastAPI:
    app = FastAPI()

    async def ingest(_: object) -> dict[str, object]:
        return _RECEIPT

    ingest.__annotations__["_"] = _model()
    app.post("/v1/ingest", status_code=201)(ingest)

    @app.get("/readyz")
    async def readyz() -> None:
        return None

    return app


class _Canned(asyncio.Protocol):
    """Answers when the announced number of bytes has arrived; a client must send its headers in one piece."""

    _missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            head, _, body = data.partition(b"\r\n\r\n")
            self._missing = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
            data = body
        self._missing -= len(data)
        if not self._missing:
            self._transport.write(_CANNED)


async def _route(port: int) -> None:
    listening = listen("127.0.0.1", port, "the bare route")
    await uvicorn.Server(configured(ApiSettings(), _application())).serve(sockets=[listening])


async def _canned(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Canned, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    memory.calm_collector()
    uvloop.run({"route": _route, "canned": _canned}[sys.argv[1]](int(sys.argv[2])))
