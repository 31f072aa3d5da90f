"""The files of the page: public, small, current, and of this host alone."""

import re
from pathlib import Path

import pytest

import api.page
from api.reject_models import MOST_REPLAYED
from tests.integration.api.server import Api

pytestmark = pytest.mark.anyio

STATIC = Path(api.page.__file__).parent / "static"
NAMES = sorted(path.name for path in STATIC.iterdir() if path.name != "index.html")
VENDOR = ["uPlot.iife.min.js", "uPlot.min.css"]
MOST_COMPRESSED_BYTES = 150_000


async def test_page_is_public_and_loads_only_its_own_files(api: Api) -> None:
    async with api.client() as anyone:
        answer = await anyone.get("/")
        used = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
        for address in used:
            assert re.fullmatch(r"page/[\w.-]+", address), "not relative to the page"
            assert (await anyone.get(f"/{address}")).status_code == 200
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert {"page/app.js", "page/style.css", "page/theme.js"} <= set(used)
    assert not re.search(r"<script>|<style|style=|\son\w+=", answer.text)


async def test_page_has_a_strict_policy(api: Api) -> None:
    async with api.client() as anyone:
        answer = await anyone.get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", [*NAMES, *VENDOR])
async def test_file_is_compressed_and_asked_for_only_once(api: Api, name: str) -> None:
    async with api.client() as anyone:
        packed = await anyone.get(f"/page/{name}", headers={"Accept-Encoding": "gzip"})
        plain = await anyone.get(f"/page/{name}", headers={"Accept-Encoding": "identity"})
        again = await anyone.get(f"/page/{name}", headers={"If-None-Match": packed.headers["etag"]})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert packed.headers["cache-control"] == "no-cache"
    assert "Accept-Encoding" in packed.headers["vary"]
    assert (again.status_code, again.content) == (304, b"")


async def test_all_of_the_page_is_small(api: Api) -> None:
    sizes = {}
    async with api.client() as anyone:
        for path in ("/", *(f"/page/{name}" for name in [*NAMES, *VENDOR])):
            async with anyone.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
                sizes[path] = sum([len(chunk) async for chunk in answer.aiter_raw()])
    assert all(size > 100 for size in sizes.values())
    assert sum(sizes.values()) <= MOST_COMPRESSED_BYTES


def test_modules_that_the_first_view_needs_are_loaded_at_once() -> None:
    """Each of them would otherwise be found only when the one that imports it has arrived."""
    preloaded = set(re.findall(r'modulepreload" href="page/([\w.-]+)"', (STATIC / "index.html").read_text()))
    needed, todo = set[str](), {"app.js"}
    while todo:
        needed |= todo
        texts = [(STATIC / name).read_text() for name in todo]
        todo = {name for text in texts for name in re.findall(r'^import .* from "\./([\w.-]+)"', text, re.M)} - needed
    assert preloaded == needed - {"app.js"}


def test_no_module_parses_text_as_html_or_code() -> None:
    for name in NAMES:
        if name.endswith(".js"):
            text = (STATIC / name).read_text()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_page_replays_as_many_rejects_in_a_request_as_the_api_accepts() -> None:
    assert f"const MOST_REPLAYED = {MOST_REPLAYED};" in (STATIC / "rejects.js").read_text()
