"""The page for people at `/`, and its files below `/page/`.

The page is HTML, CSS and JavaScript modules as they are in `static`, without a build step; `vendor` has the files of
the npm package uPlot, which `make` gets (`scripts/page-packages`). The page loads nothing from other hosts and has
nothing inline. Its addresses are relative, so that it works behind any path prefix. It reads the same routes as every
client, with the key that the person enters; the files themselves need no key.
"""

import gzip
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.negotiation import accepts_coding
from api.routing import PUBLIC

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    # A browser asks each time whether its copy is current, so that no file is of another version than its neighbours.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _File(NamedTuple):
    body: bytes
    packed: bytes
    etag: str


@cache
def _load(folder: str, name: str) -> _File:
    body = (files(__name__) / folder / name).read_bytes()
    return _File(body, gzip.compress(body, mtime=0), f'W/"{sha256(body).hexdigest()[:32]}"')


def _answer(request: Request, folder: str, name: str) -> Response:
    """The file, compressed if the client accepts gzip; 304 when the client has it."""
    file = _load(folder, name)
    headers = _HEADERS | {"ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = file.body
    if accepts_coding(request.headers.get("accept-encoding", ""), "gzip"):
        body = file.packed
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=_MEDIA_TYPES[_extension(name)])


def _extension(name: str) -> str:
    return name.rpartition(".")[2]


def _add_file(path: str, folder: str, name: str) -> None:
    async def file(request: Request) -> Response:
        return _answer(request, folder, name)

    router.add_api_route(path, file, openapi_extra=PUBLIC)


def _add_folder(folder: str) -> None:
    found = files(__name__) / folder
    names = sorted(file.name for file in found.iterdir()) if found.is_dir() else []
    for name in names:
        if _extension(name) in _MEDIA_TYPES:
            _add_file("/" if name == "index.html" else f"/page/{name}", folder, name)


_add_folder("static")
_add_folder("vendor")  # without it, the page shows tables instead of charts
