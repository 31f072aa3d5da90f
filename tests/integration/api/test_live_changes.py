"""Live lists for clients that poll: `changedSince`, `ETag`, age and silence."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from api import keys
from bridge.formats.contract_json import encode_many
from bridge.reading import Reading
from tests.integration.api.server import Api, Connection, assert_problem
from tests.readings import now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio

NOW = now_minute()
PATH = "/v1/live/vehicles"


async def store(client: httpx.AsyncClient, *readings: Reading) -> None:
    answer = await client.post(
        "/v1/ingest", content=encode_many(readings), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201, answer.text


async def changed(client: httpx.AsyncClient, since: str, **query: str) -> list[str]:
    answer = await client.get(PATH, params={"changedSince": since, **query})
    assert answer.status_code == 200, answer.text
    return [row["vehicleId"] for row in answer.json()["items"]]


async def test_changed_since_has_the_devices_that_have_reported(client: httpx.AsyncClient) -> None:
    await store(client, *(vehicle(f"EV_{n}", NOW) for n in range(5)))
    since = (await client.get(PATH)).json()["changedSince"]
    assert await changed(client, since) == []
    await store(client, *(vehicle(id_, NOW + timedelta(seconds=1)) for id_ in ("EV_1", "EV_3", "EV_9")))
    assert await changed(client, since) == ["EV_1", "EV_3", "EV_9"]
    page = (await client.get(PATH, params={"changedSince": since, "limit": "2"})).json()
    assert await changed(client, since, cursor=page["nextCursor"]) == ["EV_9"]


async def test_declared_devices_that_never_reported_are_listed_on_request(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    for path in ("vehicles/A_NEW", "vehicles/M_OLD", "vehicles/EV_2", "meters/METER_1"):
        body = {"intervalS": 60, "site": "North" if path.endswith("OLD") else "South"}
        assert (await client.put(f"/v1/devices/{path}", json=body)).is_success
    await db.execute("UPDATE device SET created_at = now() - interval '1 hour' WHERE id = 'M_OLD'")
    await store(client, vehicle("EV_1", NOW), vehicle("EV_2", NOW), vehicle("Z_1", NOW))
    assert [row["vehicleId"] for row in (await client.get(PATH)).json()["items"]] == ["EV_1", "EV_2", "Z_1"]

    asked: dict[str, str] = {"neverReported": "true", "limit": "2"}
    listed: list[dict[str, object]] = []
    while True:
        page = (await client.get(PATH, params=asked)).json()
        listed += page["items"]
        if page["nextCursor"] is None:
            break
        asked["cursor"] = page["nextCursor"]
    assert [row["vehicleId"] for row in listed] == ["A_NEW", "EV_1", "EV_2", "M_OLD", "Z_1"]
    assert listed[0].keys() == listed[1].keys()
    assert {name for name, value in listed[0].items() if value is not None} == {"vehicleId", "silent"}
    assert (listed[0]["silent"], listed[3]["silent"]) == (False, True)

    text = (await client.get(PATH, params={"neverReported": "true"}, headers={"Accept": "text/csv"})).text
    assert [line.split(",")[0] for line in text.splitlines()[1:]] == ["A_NEW", "EV_1", "EV_2", "M_OLD", "Z_1"]
    token = (await keys.create(db, "north", keys.Grant(("read",), ("vehicle:Z_*",), sites=("North",))))[1]
    async with api.client(token) as own:
        items = (await own.get(PATH, params={"neverReported": "true"})).json()["items"]
    assert [row["vehicleId"] for row in items] == ["M_OLD", "Z_1"]
    since = (await client.get(PATH)).json()["changedSince"]
    refused = await client.get(PATH, params={"neverReported": "true", "changedSince": since})
    assert_problem(refused, 422, "neverReported")


async def test_list_of_a_site_has_what_is_declared_there(api: Api, client: httpx.AsyncClient, db: Connection) -> None:
    for device, site in (("EV_1", "North"), ("EV_2", "South"), ("EV_3", "North"), ("EV_4", "North")):
        assert (await client.put(f"/v1/devices/vehicles/{device}", json={"site": site})).is_success
    await store(client, *(vehicle(f"EV_{n}", NOW) for n in (1, 2, 3, 5)))
    page = (await client.get(PATH, params={"site": "North", "limit": "1"})).json()
    assert [row["vehicleId"] for row in page["items"]] == ["EV_1"]
    following = await client.get(PATH, params={"site": "North", "cursor": page["nextCursor"], "neverReported": "true"})
    assert [row["vehicleId"] for row in following.json()["items"]] == ["EV_3", "EV_4"]
    text = (await client.get(PATH, params={"site": "South"}, headers={"Accept": "text/csv"})).text
    assert [line.split(",")[0] for line in text.splitlines()[1:]] == ["EV_2"]
    assert (await client.get(PATH, params={"site": "East"})).json()["items"] == []
    await store(client, *(vehicle(f"EV_{n}", NOW + timedelta(seconds=1)) for n in (2, 3)))
    assert await changed(client, page["changedSince"], site="North") == ["EV_3"]
    token = (await keys.create(db, "north", keys.Grant(("read",), ("EV_2",), sites=("North",))))[1]
    async with api.client(token) as own:
        assert len((await own.get(PATH, params={"site": "North"})).json()["items"]) == 2
        assert_problem(await own.get(PATH, params={"site": "South"}), 403, "site")


async def test_change_that_commits_late_is_in_the_next_changes(client: httpx.AsyncClient, db: Connection) -> None:
    await store(client, vehicle("EV_1", NOW), vehicle("EV_2", NOW))
    transaction = db.transaction()
    await transaction.start()
    async with db.transaction():
        await db.execute("UPDATE vehicle_live_status SET soc = 1 WHERE vehicle_id = 'EV_1'")
    since = (await client.get(PATH)).json()["changedSince"]
    assert "EV_1" not in await changed(client, since)
    await transaction.commit()
    assert "EV_1" in await changed(client, since)


async def test_device_that_becomes_silent_is_a_change_and_has_another_etag(client: httpx.AsyncClient) -> None:
    assert (await client.put("/v1/devices/vehicles/EV_1", json={"intervalS": 1})).is_success
    await store(client, vehicle("EV_1", datetime.now(UTC)))
    first = await client.get(PATH)
    assert first.json()["items"][0]["silent"] is False
    since = first.json()["changedSince"]
    await until(lambda: changed(client, since), "EV_1 is silent")
    again = await client.get(PATH, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 200
    assert again.json()["items"][0]["silent"] is True


async def test_silence_follows_the_default_interval_without_a_declaration(client: httpx.AsyncClient) -> None:
    await store(client, vehicle("OLD", NOW - timedelta(seconds=181)), vehicle("NEW", datetime.now(UTC)))
    rows = {row["vehicleId"]: row for row in (await client.get(PATH)).json()["items"]}
    assert (rows["OLD"]["silent"], rows["NEW"]["silent"]) == (True, False)
    assert rows["OLD"]["ageSeconds"] >= 181


@pytest.mark.parametrize("path", [PATH, f"{PATH}/EV_1"])
async def test_etag_is_known_until_a_reading_comes(client: httpx.AsyncClient, path: str) -> None:
    await store(client, vehicle("EV_1", NOW))
    etag = (await client.get(path)).headers["ETag"]
    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        answer = await client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    await store(client, vehicle("EV_1", NOW + timedelta(seconds=1)))
    assert (await client.get(path, headers={"If-None-Match": etag})).status_code == 200


async def test_changed_since_of_another_server_is_gone(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(PATH, params={"changedSince": "1-2-3"}), 410, "whole list")


@pytest.mark.parametrize("since", ["", "2026-11-28T00:00:00Z", "1-2"])
async def test_text_that_is_no_changed_since_is_refused(client: httpx.AsyncClient, since: str) -> None:
    assert_problem(await client.get(PATH, params={"changedSince": since}), 422, "changedSince")
