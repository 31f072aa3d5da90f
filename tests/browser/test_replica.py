"""The page while its questions are answered by a replica, which is behind the person's own change."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from local.platform import Platform
from tests.browser.conftest import Faults, OpenPage, go_to
from tests.browser.fleet import client
from tests.browser.test_page import is_live, reject_as_too_late
from tests.until import wait_until


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with a replica, which answers also when it is far behind."""
    with (
        pytest.MonkeyPatch.context() as environment,
        Platform(tmp_path_factory.mktemp("platform"), replicas=1) as running,
    ):
        environment.setenv("FLEET_REPLICA_LAG_LIMIT_S", "3600")
        running.start()
        yield running


def has_replica(platform: Platform) -> bool:
    """Whether the API asks the replica."""
    with client(platform) as http:
        return re.search(r"^fleet_replica_usable{.*} 1.0$", http.get("/metrics").text, re.MULTILINE) is not None


@pytest.fixture
def late(platform: Platform) -> Iterator[str]:
    """A vehicle whose only message was rejected, which the replica has; the replica replays nothing more."""
    (replica,) = platform.replicas
    wait_until(lambda: has_replica(platform), "the replica is asked")
    reject_as_too_late(platform, "EV_LATE")
    with client(platform) as http:
        wait_until(lambda: http.get("/v1/rejects?device=EV_LATE").json()["items"], "the reject is stored")
        http.put("/v1/devices/vehicles/EV_LATE", json={"name": "Late"}).raise_for_status()
    replica.sql("SELECT pg_wal_replay_pause()")
    try:
        yield "EV_LATE"
    finally:
        replica.sql("SELECT pg_wal_replay_resume()")


def replay(page: Page, vehicle: str) -> None:
    """Replay the vehicle's reject by the page."""
    reject = page.get_by_role("region", name="Rejects table").get_by_role("row").filter(has_text=vehicle)
    reject.get_by_role("button", name="Replay").click()
    expect(reject).to_contain_text("Stored: 1 reading new")


def test_own_change_is_shown_although_the_replica_does_not_have_it(
    open_page: OpenPage, platform: Platform, late: str
) -> None:
    page = open_page("#/quality")
    is_live(page)
    replay(page, late)
    with client(platform) as http:
        assert http.get(f"/v1/live/vehicles/{late}").status_code == 404  # of the replica
    go_to(page, f"#/vehicles/{late}?span=week")
    expect(page.get_by_role("region", name="State of charge")).to_be_visible()
    assert has_replica(platform)


@pytest.mark.parametrize("position", ["0-1", "1-FFFFFFFFFFFF"], ids=["from before a failover", "of another database"])
def test_questions_are_answered_although_the_position_of_a_change_is_not_known(
    open_page: OpenPage, platform: Platform, faults: Faults, position: str
) -> None:
    faults.expected = ("410", "422")

    def move(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "x-position": position})

    reject_as_too_late(platform, "EV_MOVED")
    page = open_page("#/quality")
    page.route("**/v1/rejects/replay", move)
    replay(page, "EV_MOVED")
    asked: list[str] = []
    page.on("response", lambda answer: asked.append(f"{answer.status} {answer.url}"))
    go_to(page, "#/quality?days=7")
    expect(page.get_by_role("region", name="Totals")).to_be_visible()
    statuses = [one.split()[0] for one in asked if "/v1/quality" in one]
    assert statuses in (["410", "200"], ["422", "200"])
    go_to(page, "#/quality?days=30")
    expect(page.get_by_role("region", name="Totals")).to_be_visible()
    assert "asOf" not in asked[-1]
