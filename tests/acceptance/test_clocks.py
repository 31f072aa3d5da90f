"""Clock jumps, midnight, and a whole day sent again: over MQTT and HTTP, with the whole stack."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx

from bridge.formats.contract_json import encode_many
from bridge.reading import Reading
from local.platform import Platform
from tests.devices import publish_with_paho
from tests.readings import meter, minutes, now_minute, vehicle
from tests.until import wait_until

_DAY = 1440
_MOST = 1000
"""Readings of one MQTT message."""
_JSON = {"Content-Type": "application/json"}


def question(platform: Platform, sql: str) -> str:
    return platform.postgres.sql(sql, platform.database)


def post(client: httpx.Client, readings: list[Reading]) -> dict[str, object]:
    answer: dict[str, object] = client.post("/v1/ingest", content=encode_many(readings), headers=_JSON).json()
    return {name: answer[name] for name in ("stored", "duplicates", "rejected")}


def publish(platform: Platform, topic: str, readings: list[Reading]) -> None:
    messages = [(topic, encode_many(readings[n : n + _MOST])) for n in range(0, len(readings), _MOST)]
    asyncio.run(publish_with_paho(platform.broker.url, "5", messages))


def test_day_of_readings_sent_again_is_all_duplicates(platform: Platform, client: httpx.Client) -> None:
    """The day ends now, so it contains a midnight, with the last reading before and the first after it."""
    counts = "SELECT (SELECT count(*) FROM vehicle_telemetry_history), (SELECT count(*) FROM meter_telemetry_history)"
    end = now_minute()
    days: dict[str, list[Reading]] = {
        "fleet/vehicle/EV_DAY/telemetry": list(minutes("EV_DAY", _DAY, end)),
        "fleet/meter/M_DAY/telemetry": [meter("M_DAY", end - timedelta(minutes=n)) for n in range(_DAY)],
    }
    for topic, readings in days.items():
        publish(platform, topic, readings)
    wait_until(lambda: question(platform, counts) == f"{_DAY}|{_DAY}", "both days are stored")
    before = question(platform, "SELECT * FROM vehicle_live_status")
    for topic, readings in days.items():
        assert post(client, readings) == {"stored": 0, "duplicates": _DAY, "rejected": []}
        publish(platform, topic, list(reversed(readings)))
    behind: list[Reading] = [vehicle("EV_BEHIND")]
    publish(platform, "fleet/vehicle/EV_BEHIND/telemetry", behind)
    live = "SELECT count(*) FROM vehicle_live_status WHERE vehicle_id = 'EV_BEHIND'"
    wait_until(lambda: question(platform, live) == "1", "the reading after the repeated days is stored")
    assert question(platform, counts) == f"{_DAY + 1}|{_DAY}"
    assert question(platform, "SELECT * FROM vehicle_live_status WHERE vehicle_id = 'EV_DAY'") == before
    assert question(platform, "SELECT count(*) FROM rejected_message") == "0"


def test_clock_that_jumps_is_stored_where_it_may_be_and_the_newest_stays_live(
    platform: Platform, client: httpx.Client
) -> None:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    taken = [now, now + timedelta(minutes=4), now - timedelta(days=2), midnight - timedelta(microseconds=1), midnight]
    refused = [now + timedelta(days=1), now - timedelta(days=100)]
    jumps = [taken[0], refused[0], taken[1], taken[2], refused[1], taken[3], taken[4]]
    for at in jumps:
        outcome = post(client, [vehicle("EV_JUMP", at)])
        assert (outcome["stored"], outcome["duplicates"]) == (int(at in taken), 0)
    publish(platform, "fleet/vehicle/EV_JUMP2/telemetry", [vehicle("EV_JUMP2", at) for at in jumps])
    stored = "SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = '{}'"
    wait_until(lambda: question(platform, stored.format("EV_JUMP2")) == str(len(taken)), "the backlog is stored")
    rejects = "SELECT count(*) FROM rejected_message WHERE device = '{}' AND reason = 'timestamp_out_of_range'"
    newest = "SELECT ts = '{}' FROM vehicle_live_status WHERE vehicle_id = '{}'"
    for device in ("EV_JUMP", "EV_JUMP2"):
        assert question(platform, stored.format(device)) == str(len(taken))
        assert question(platform, rejects.format(device)) == str(len(refused))
        assert question(platform, newest.format(taken[1].isoformat(), device)) == "t"
