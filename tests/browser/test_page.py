"""The page in a browser: what is stored appears at once, for everybody who may see it."""

import json
import subprocess
from datetime import UTC, datetime

from playwright.sync_api import Page, expect

from local.platform import Platform
from local.service import run_once
from tests.browser.conftest import PHONE, RESULTS, Faults, OpenPage
from tests.browser.fleet import send_many, text

WITHIN_MS = 2_000
FIRST_VIEW_MS = 1_000


def manage_keys(platform: Platform, *arguments: str) -> str:
    """Run `python -m api key ...`; its output."""
    return run_once(["api", "key", *arguments], {"FLEET_DATABASE_URL": platform.database_url})


def publish(platform: Platform, vehicle: str, soc: float) -> None:
    """Publish a reading over MQTT, as a device does."""
    reading = json.dumps({"vehicleId": vehicle, "timestamp": text(datetime.now(UTC)), "soc": soc})
    url = f"{platform.broker.url}/fleet/vehicle/{vehicle}/telemetry"
    subprocess.run(["mosquitto_pub", "-V", "5", "-q", "1", "-L", url, "-m", reading], check=True, timeout=20)


def row(page: Page, device: str) -> str:
    """The selector of a device's row in the list of the fleet."""
    return f'tr[data-id="{device}"]'


def is_live(page: Page) -> None:
    """Wait until the page has the picture of the fleet."""
    expect(page.locator("#connection")).to_have_text("Live", timeout=20_000)


def test_sign_in_keeps_the_key_for_the_session_and_out_of_addresses(open_page: OpenPage, platform: Platform) -> None:
    page = open_page(key="")
    page.get_by_label("API key").fill(platform.api_key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="EV_1", exact=True)).to_be_visible()
    assert platform.api_key not in page.url
    assert page.evaluate("[localStorage.getItem('fleet.key'), sessionStorage.getItem('fleet.key')]") == [
        None,
        platform.api_key,
    ]
    page.reload()
    expect(page.get_by_role("link", name="EV_1", exact=True)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_focused()
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    expect(page.get_by_role("navigation")).to_be_hidden()


def test_key_is_kept_on_the_device_if_the_person_wants_that(open_page: OpenPage, platform: Platform) -> None:
    page = open_page(key="")
    page.get_by_label("API key").fill(platform.api_key)
    page.get_by_label("Stay signed in on this device").check()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert page.evaluate("localStorage.getItem('fleet.key')") == platform.api_key


def test_refused_key_is_told_why(open_page: OpenPage, platform: Platform, faults: Faults) -> None:
    faults.expected = ("401", "403")
    page = open_page(key="")
    for key, reason in (
        ("nonsense", "API key"),
        (manage_keys(platform, "create", "device", "--scope=ingest"), "lacks the scope read"),
    ):
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text(reason)
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_reading_over_mqtt_appears_within_two_seconds_without_a_reload(open_page: OpenPage, platform: Platform) -> None:
    page = open_page("#/fleet")
    is_live(page)
    page.evaluate("window.kept = true")
    for soc in (41, 42):
        publish(platform, "EV_1", soc)
        expect(page.locator(row(page, "EV_1"))).to_contain_text(f"{soc} %", timeout=WITHIN_MS)
    publish(platform, "EV_NEW", 77)
    expect(page.locator(row(page, "EV_NEW"))).to_contain_text("77 %", timeout=WITHIN_MS)
    assert page.evaluate("window.kept")


def test_page_says_that_the_api_is_gone_and_misses_nothing_when_it_is_back(
    open_page: OpenPage, platform: Platform, faults: Faults
) -> None:
    faults.expected = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE")
    faults.expected += ("ERR_CONNECTION_RESET", "503")
    page = open_page("#/fleet")
    is_live(page)
    platform.api.process.kill()
    try:
        expect(page.locator("#connection")).to_contain_text("No connection", timeout=10_000)
        publish(platform, "EV_1", 33)
        publish(platform, "EV_MEANWHILE", 34)
    finally:
        platform.api.start()
    is_live(page)
    expect(page.locator(row(page, "EV_1"))).to_contain_text("33 %")
    expect(page.locator(row(page, "EV_MEANWHILE"))).to_contain_text("34 %")


def test_page_says_that_the_database_is_gone_and_that_it_is_back(
    open_page: OpenPage, platform: Platform, faults: Faults
) -> None:
    faults.expected = ("503",)
    page = open_page("#/fleet")
    is_live(page)
    platform.postgres.stop()
    try:
        expect(page.locator("#connection")).to_contain_text("No database", timeout=20_000)
        expect(page.locator(row(page, "EV_1"))).to_be_visible()
    finally:
        platform.postgres.start()
    is_live(page)
    publish(platform, "EV_1", 35)
    expect(page.locator(row(page, "EV_1"))).to_contain_text("35 %", timeout=20_000)


def test_revoked_key_leads_to_the_sign_in(open_page: OpenPage, platform: Platform, faults: Faults) -> None:
    faults.expected = ("401",)
    key = manage_keys(platform, "create", "reader", "--scope=read")
    page = open_page("#/fleet", key=key)
    is_live(page)
    manage_keys(platform, "revoke", key.split("_")[1])
    page.evaluate("location.hash = '#/other'")
    expect(page.get_by_role("alert")).to_contain_text("no longer accepts this key")
    expect(page.get_by_role("navigation")).to_be_hidden()
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_first_instants_of_days_are_those_of_the_zone(open_page: OpenPage) -> None:
    page = open_page("#/fleet")
    is_live(page)
    found = page.evaluate(
        """async () => {
          const { startOfDay, periodOf } = await import("./page/time.js");
          return [
            startOfDay("2026-10-25", "Europe/Berlin"), startOfDay("2026-10-26", "Europe/Berlin"),
            startOfDay("2018-11-04", "America/Sao_Paulo"), startOfDay("2026-02-10", "Asia/Kolkata"),
            startOfDay("2018-11-05", "America/Sao_Paulo"), periodOf("2026-03-29", "week", "Europe/Berlin").to,
          ].map((at) => at.toISOString().slice(0, 16));
        }"""
    )
    assert found == [
        *("2026-10-24T22:00", "2026-10-25T23:00"),
        *("2018-11-04T03:00", "2026-02-09T18:30", "2018-11-05T02:00", "2026-03-29T22:00"),
    ]


def test_colours_follow_the_switch(open_page: OpenPage) -> None:
    page = open_page("#/fleet")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(background)
    button = page.get_by_role("button", name="Colours")
    button.click()
    assert page.evaluate(background) == light
    button.click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark
    assert open_page("#/fleet", dark=True).evaluate(background) == dark


def test_list_keeps_its_place_and_focus_while_readings_arrive(open_page: OpenPage, platform: Platform) -> None:
    page = open_page("#/fleet", size=PHONE)
    link = page.get_by_role("link", name="EV_1", exact=True)
    link.focus()
    publish(platform, "A_FIRST", 50)
    expect(page.locator(row(page, "A_FIRST"))).to_contain_text("50 %", timeout=WITHIN_MS)
    expect(link).to_be_focused()


def test_ten_thousand_vehicles_are_shown_within_a_second(open_page: OpenPage, platform: Platform) -> None:
    send_many(platform, 10_000)
    page = open_page("#/fleet")
    views = []
    for _ in range(3):
        expect(page.get_by_text(" of 10,0")).to_be_visible(timeout=20_000)
        views.append(page.evaluate("performance.getEntriesByName('fleet-shown')[0].startTime"))
        page.reload()
    assert min(views) < FIRST_VIEW_MS, views
    expect(page.locator(row(page, "FLEET_00000"))).to_be_visible()
    assert page.locator("tr[data-id]").count() < 80
    page.screenshot(path=RESULTS / "fleet-10000.png")
    page.get_by_label("Search").fill("fleet_09999")
    expect(page.get_by_text("1 of 10,0")).to_be_visible()
    expect(page.locator(row(page, "FLEET_09999"))).to_be_visible()
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Charge", exact=True).click()
    page.get_by_role("button", name="Charge", exact=True).click()
    expect(page.locator("tr[data-id]").first).to_contain_text("100 %")
    page.get_by_role("region", name="Vehicles", exact=True).press("End")
    expect(page.locator("tr[data-id]").last).to_be_visible()
