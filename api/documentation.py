"""/openapi.json and /docs: the OpenAPI document, and a page that shows it and sends requests.

The page loads nothing from other hosts: its script and style are files of the package fastapi-swagger, which are those
of npm's swagger-ui-dist. All its addresses are relative, so it works behind any path prefix, and nothing is inline.
"""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from api.routing import PUBLIC

router = APIRouter(include_in_schema=False)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fleet energy bridge: HTTP API</title>
<link rel="icon" type="image/png" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KEPT = {"Cache-Control": "max-age=3600"}
_FILES = {
    "swagger-ui.css": ("swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript"),
    "favicon.png": ("favicon-32x32.png", "image/png"),
}


@router.get("/openapi.json", openapi_extra=PUBLIC)
async def document(request: Request) -> Response:
    """The OpenAPI document."""
    return Response(_document(request.app), media_type="application/json")


@cache
def _document(app: FastAPI) -> bytes:
    """Serialized once: it takes 20 ms, and needs no key."""
    return bytes(JSONResponse(app.openapi()).body)


@router.get("/docs", openapi_extra=PUBLIC)
async def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js", openapi_extra=PUBLIC)
async def start() -> Response:
    """The script that shows the document on the page."""
    return Response(_START, headers=_KEPT, media_type="text/javascript")


def _add_file(name: str, resource: str, media_type: str) -> None:
    path = str(files("fastapi_swagger") / "resources" / resource)

    async def file() -> FileResponse:
        return FileResponse(path, headers=_KEPT, media_type=media_type)

    router.add_api_route(f"/docs/{name}", file, openapi_extra=PUBLIC)


for _name, (_resource, _media_type) in _FILES.items():
    _add_file(_name, _resource, _media_type)
