"""Every view on phone and desktop, in light and dark: axe finds nothing, the page fits; with a picture of each."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from local.platform import Platform
from tests.browser.conftest import DESKTOP, PHONE, RESULTS, OpenPage
from tests.browser.fleet import send_last_hours

AXE = Path(__file__).resolve().parents[2] / "scripts" / "page" / "node_modules" / "axe-core" / "axe.min.js"
WALL = (1920, 1080)
VIEWS = {
    "fleet": ("#/fleet", "EV_1"),
    "vehicle": ("#/vehicles/EV_1?span=day&tz=Europe/Berlin", "State of charge"),
    "vehicle-week": ("#/vehicles/EV_2?span=week&tz=Europe/Berlin", "State of charge"),
    "meter": ("#/meters/METER_2?span=week&tz=Europe/Berlin", "Voltage"),
    "sessions": ("#/sessions?by=vehicle&of=EV_1", "Efficiency"),
    "quality": ("#/quality?days=7", "with a fault"),
    "alarms": ("#/alarms", "EV_3"),
    "system": ("#/system", "Version"),
}
"""Of each view, its address and a text that it has when it is complete."""


@pytest.fixture(scope="module", autouse=True)
def last_hours(platform: Platform) -> None:
    """At every time of day some vehicles charge and some drive."""
    send_last_hours(platform)


def violations(page: Page) -> list[str]:
    """What axe finds, each as the rule and the elements."""
    page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in found]


def beside(page: Page) -> int:
    """By how much the page is wider than the screen."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider


def keep_picture(page: Page, name: str) -> None:
    """Of the whole page, on a screen that is high enough: what is fixed to its edges stays there."""
    height: int = page.evaluate("document.documentElement.scrollHeight")
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
    RESULTS.mkdir(exist_ok=True)
    page.screenshot(path=RESULTS / f"{name}.png")
    page.set_viewport_size(size)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("name", "size"), [("fleet", WALL), *((name, size) for name in VIEWS for size in (PHONE, DESKTOP))]
)
def test_view_is_accessible_and_fits(open_page: OpenPage, name: str, size: tuple[int, int], dark: bool) -> None:
    fragment, complete = VIEWS[name]
    page = open_page(fragment, size=size, dark=dark)
    expect(page.locator("#connection")).to_have_text("Live", timeout=20_000)
    expect(page.locator("main").get_by_text(complete).first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Loading …")).to_have_count(0, timeout=20_000)
    keep_picture(page, f"{name}-{size[0]}-{'dark' if dark else 'light'}")
    assert violations(page) == []
    assert beside(page) <= 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_sign_in_is_accessible_and_fits(open_page: OpenPage, dark: bool) -> None:
    page = open_page(key="", size=PHONE, dark=dark)
    expect(page.get_by_label("API key")).to_be_visible()
    keep_picture(page, f"sign-in-{PHONE[0]}-{'dark' if dark else 'light'}")
    assert violations(page) == []
    assert beside(page) <= 0
