"""An alarm from the silence of a vehicle to the person who is told, acknowledges it and sees it cleared; with a picture
of each step for the film strip of docs/alarms.md."""

import contextlib
import html
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import Browser, Page, expect

from local.platform import Platform
from tests.browser.conftest import RESULTS, OpenPage, bring_into_view, go_to
from tests.browser.fleet import client
from tests.browser.test_page import is_live, publish, row
from tests.until import wait_until
from tests.webhooks import Received

SIZE = (760, 420)
WITHIN_S = 90
"""Several rounds of the keeper, which judges every 15 s, on a busy machine."""
NAME = "EV_STRIP"
_WEBHOOK = """
<body style="font: 14px ui-monospace, monospace; margin: 2em; overflow-wrap: anywhere">
<h1 style="font-size: 18px">POST to the webhook</h1><p>{head}</p><p>{body}</p>
<p>The signature is that of the secret.</p>
"""


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, list[Received]]]:
    """The URL of an HTTP server, and what it has received."""
    received: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(Received({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/alarms", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def keep(page: Page, step: int) -> None:
    RESULTS.mkdir(exist_ok=True)
    page.screenshot(path=RESULTS / f"alarm-strip-{step}.png")


def show_webhook(browser: Browser, received: Received, step: int) -> None:
    """A picture of what the receiver got."""
    head = "<br>".join(
        f"{name}: {html.escape(received.headers[name])}" for name in received.headers if "webhook" in name
    )
    body = html.escape(json.dumps(json.loads(received.body)))
    page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
    page.set_content(_WEBHOOK.format(head=head, body=body))
    keep(page, step)
    page.close()


def test_silence_is_told_acknowledged_and_cleared(open_page: OpenPage, platform: Platform, browser: Browser) -> None:
    with receiver() as (url, received), client(platform) as http:
        http.put(f"/v1/devices/vehicles/{NAME}", json={"site": "Strip", "intervalS": 2}).raise_for_status()
        webhook = http.post("/v1/webhooks", json={"url": url}).raise_for_status().json()

        def told(event: str) -> list[Received]:
            return [one for one in list(received) if one.event == (event, NAME)]

        page = open_page("#/fleet?site=Strip", size=SIZE)
        is_live(page)
        publish(platform, NAME, 64)
        vehicle = page.locator(row(page, NAME))
        expect(vehicle).to_contain_text("64 %")
        bring_into_view(vehicle)
        keep(page, 1)

        expect(vehicle).to_contain_text("ilent", timeout=WITHIN_S * 1000)
        keep(page, 2)

        go_to(page, "#/alarms")
        alarm = page.get_by_role("row").filter(has=page.get_by_role("link", name=NAME, exact=True)).first
        expect(alarm).to_be_visible(timeout=WITHIN_S * 1000)
        bring_into_view(alarm)
        keep(page, 3)
        wait_until(lambda: told("alarm.raised"), "the webhook is told of the alarm", WITHIN_S)
        (raised,) = told("alarm.raised")
        assert raised.is_signed_with(webhook["secret"])
        show_webhook(browser, raised, 4)

        alarm.get_by_role("button", name="Acknowledge").click()
        expect(alarm).to_contain_text("local")
        keep(page, 5)

        def reports_and_is_told() -> list[Received]:
            publish(platform, NAME, 63)
            return told("alarm.cleared")

        wait_until(reports_and_is_told, "the alarm is cleared", WITHIN_S)
        expect(alarm).to_have_count(0, timeout=WITHIN_S * 1000)
        assert told("alarm.cleared")[0].is_signed_with(webhook["secret"])
        keep(page, 6)
        assert len(told("alarm.raised")) == 1
        http.delete(f"/v1/webhooks/{webhook['id']}").raise_for_status()
        http.delete(f"/v1/devices/vehicles/{NAME}").raise_for_status()
