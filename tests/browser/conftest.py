"""A real browser before the real stack: the system's Chromium, driven through Playwright.

A page fails its test when it logs an error, throws one, or sends a request to another host.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from local.platform import Platform
from tests.browser.fleet import send_small_fleet

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
RESULTS = Path(__file__).resolve().parents[2] / "browser-results"
"""Screenshots of each run; CI keeps them."""
DESKTOP, PHONE = (1366, 900), (360, 740)

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """PostgreSQL, Mosquitto, bridge, keeper and API, with a small fleet."""
    with Platform(tmp_path_factory.mktemp("platform")) as running:
        running.start()
        send_small_fleet(running)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; pages of different tests share nothing.

    Playwright has an event loop in this thread, so it must be gone when the asynchronous tests of other modules run.
    """
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def go_to(page: Page, address: str) -> None:
    """Change the view of an open page, such as to `#/alarms`.

    Until the new one is loaded the page shows the one before, in which a locator may match as well.
    """
    page.evaluate("address => { location.hash = address; }", address)
    expect(page.locator("main")).to_have_attribute("data-address", address)


def bring_into_view(element: Locator) -> None:
    """Scroll to an element, also if it is replaced by another one meanwhile."""
    element.hover(trial=True)


class Faults:
    """What went wrong on a page."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.expected: tuple[str, ...] = ()
        """Parts of errors that the test provokes."""

    def on_console(self, message: ConsoleMessage) -> None:
        """Keep errors and warnings."""
        if message.type in ("error", "warning"):
            self.found.append(f"{message.text} ({message.location['url']})")

    @property
    def unexpected(self) -> list[str]:
        return [fault for fault in self.found if not any(part in fault for part in self.expected)]


@pytest.fixture
def faults() -> Iterator[Faults]:
    """The faults of the pages of a test, which has none at its end."""
    kept = Faults()
    yield kept
    assert kept.unexpected == []


@pytest.fixture
def open_page(browser: Browser, platform: Platform, faults: Faults) -> Iterator[OpenPage]:
    """Open the page in a fresh profile, signed in unless `key` is empty."""
    opened: list[Page] = []

    def open_(
        fragment: str = "",
        *,
        size: tuple[int, int] = DESKTOP,
        dark: bool = False,
        key: str | None = None,
        zone: str = "Europe/Berlin",
    ) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            timezone_id=zone,
            locale="en-GB",
        )
        page = context.new_page()
        opened.append(page)
        page.on("console", faults.on_console)
        page.on("pageerror", lambda error: faults.found.append(str(error)))
        page.on("request", lambda request: _refuse_foreign(request.url, platform, faults))
        token = platform.api_key if key is None else key
        if token:
            context.add_init_script(f"sessionStorage.setItem('fleet.key', '{token}')")
        page.goto(f"{platform.api.url}/{fragment}")
        return page

    yield open_
    for page in opened:
        page.context.close()


def _refuse_foreign(url: str, platform: Platform, faults: Faults) -> None:
    """A request to another host, or one with the key in its address, is a fault."""
    own = urlsplit(platform.api.url).netloc
    parts = urlsplit(url)
    if (parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != own) or platform.api_key in url:
        faults.found.append(f"request to {url}")
