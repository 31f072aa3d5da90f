"""/openapi.json and /docs: the description of the API, and a page that shows it and sends requests."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse

from api.routing import PUBLIC

router = APIRouter(include_in_schema=False)

# The documentation page takes its script and style from its usual place and starts it with one inline script.
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: https://fastapi.tiangolo.com; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "frame-ancestors 'none'"
)


@router.get("/openapi.json", openapi_extra=PUBLIC)
async def document(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    description: dict[str, Any] = request.app.openapi()
    return JSONResponse(description)


@router.get("/docs", openapi_extra=PUBLIC)
async def page() -> HTMLResponse:
    """The page."""
    shown = get_swagger_ui_html(openapi_url="openapi.json", title="Fleet energy bridge")
    shown.headers["Content-Security-Policy"] = _POLICY
    return shown
