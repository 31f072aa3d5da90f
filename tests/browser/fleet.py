"""The fleets that the pages show, sent as readings over HTTP."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from local.platform import Platform
from tests.until import wait_until

_MOST = 10_000
"""Readings of one request."""
_SENT_DAYS = 30
"""The last days of a year, which other tests may have reported as well; a device may send readings of the last 90."""
_MINUTE = timedelta(minutes=1)
Readings = Sequence[Mapping[str, Any]]


def client(platform: Platform) -> httpx.Client:
    """A client of the API with all rights."""
    headers = {"Authorization": f"Bearer {platform.api_key}"}
    return httpx.Client(base_url=platform.api.url, headers=headers, timeout=60)


def send(platform: Platform, readings: Readings) -> None:
    """Store readings."""
    with client(platform) as http:
        for start in range(0, len(readings), _MOST):
            http.post("/v1/ingest", json=readings[start : start + _MOST]).raise_for_status()


def now() -> datetime:
    """The current second."""
    return datetime.now(UTC).replace(microsecond=0)


def yesterdays_noon() -> datetime:
    """12:00 UTC of yesterday."""
    return now().replace(hour=12, minute=0, second=0) - timedelta(days=1)


def text(at: datetime) -> str:
    """A timestamp as devices send it."""
    return at.isoformat().replace("+00:00", "Z")


def send_small_fleet(platform: Platform) -> None:
    """Three vehicles with a meter each, over two days: with a gap, a reset, energy to withhold, a silent vehicle
    and rejects."""
    with client(platform) as http:
        for n, site in enumerate(("Depot North", "Depot North", "Depot South"), start=1):
            declared = {"site": site, "timeZone": "Europe/Berlin", "intervalS": 60, "ratedKw": 50}
            http.put(f"/v1/devices/vehicles/EV_{n}", json={"name": f"Van {n}", **declared}).raise_for_status()
            http.put(f"/v1/devices/meters/METER_{n}", json={"name": f"Charger {n}", **declared}).raise_for_status()
            begin = text(now() - timedelta(days=3))
            http.put(f"/v1/meters/METER_{n}/assignments/{begin}", json={"vehicleId": f"EV_{n}"}).raise_for_status()
    send(platform, [reading for n in (1, 2, 3) for reading in _two_days(n)])
    with client(platform) as http:
        answer = http.post("/v1/ingest", json=_wrong())
        assert answer.status_code == 422, answer.text


def _wrong() -> list[dict[str, Any]]:
    """Readings that are rejected."""
    return [
        {"vehicleId": "EV_1", "timestamp": text(now() - timedelta(days=200)), "soc": 50},
        {"vehicleId": "EV_2", "timestamp": text(now()), "kwhDeliveredDc": "1,25"},
        {"meterId": "METER_1", "timestamp": "yesterday", "voltage": 231},
    ]


def _two_days(n: int) -> Iterator[dict[str, Any]]:
    """A reading a minute of a vehicle that is charged six hours a day, and of its meter."""
    end = now()
    noon = yesterdays_noon()
    register = 1000.0
    for minute in range(2 * 1440, -1, -1):
        at = end - minute * _MINUTE
        of_day = at.hour * 60 + at.minute
        if n == 2 and noon + 180 * _MINUTE <= at < noon + 300 * _MINUTE:
            continue  # a gap
        if n == 3 and minute < 90:
            continue  # silent
        power = 11.0 if of_day < 300 or of_day >= 1380 else -6.0 if 480 <= of_day < 540 else 0.0
        ac = max(0.0, power) / 0.91
        register += ac / 60
        if n == 2 and noon <= at < noon + _MINUTE:
            register = 0.5  # a reset
        if n == 2 and noon + 30 * _MINUTE <= at < noon + 31 * _MINUTE:
            register += 9000  # more than the rated power allows
        soc = 60 + 30 * math.sin(of_day / 1440 * 2 * math.pi)
        yield {
            "vehicleId": f"EV_{n}",
            "timestamp": text(at),
            "soc": round(soc, 1),
            "kwhDeliveredDc": round(power / 60, 6),
            "powerKw": power,
            "batteryTemp": round(18 + 6 * math.sin(of_day / 200), 1),
        }
        yield {
            "meterId": f"METER_{n}",
            "timestamp": text(at),
            "kwhImportRegister": round(register, 4),
            "powerKw": round(ac, 2),
            "voltage": 231.5,
        }


def send_last_hours(platform: Platform) -> None:
    """Eight more vehicles with a meter each, of which some charge now and some drive, in the last two hours; wait until
    the keeper has summarized a part of them."""
    begin = text(now() - timedelta(days=1))
    with client(platform) as http:
        for n in range(4, 12):
            declared = {"site": "Depot South" if n % 3 else "Depot North", "timeZone": "Europe/Berlin", "intervalS": 60}
            http.put(f"/v1/devices/vehicles/EV_{n}", json={"name": f"Van {n}", **declared}).raise_for_status()
            http.put(f"/v1/devices/meters/METER_{n}", json={"name": f"Charger {n}", **declared}).raise_for_status()
            http.put(f"/v1/meters/METER_{n}/assignments/{begin}", json={"vehicleId": f"EV_{n}"}).raise_for_status()
    send(platform, [reading for n in range(4, 12) for reading in _last_hours(n)])
    with client(platform) as http:
        question = {"of": "fleet", "from": begin}

        def is_summarized() -> bool:
            answer = http.get("/v1/analytics/efficiency", params=question).raise_for_status().json()
            return answer["items"][0]["efficiency"] is not None

        wait_until(is_summarized, "the fleet has an efficiency", timeout_s=120)


def _last_hours(n: int) -> Iterator[dict[str, Any]]:
    """A reading a minute of a vehicle that drives, rests or charges after an hour of charging, and of its meter."""
    power_now = (11.0, -8.4, 0.0, 22.0)[n % 4]
    soc = 10.0 + 4 * n
    for minute in range(120, -1, -1):
        at = text(now() - minute * _MINUTE)
        power = power_now if minute < 40 else 11.0 if minute >= 60 else 0.0
        soc += power / 60 / 0.6
        yield {
            "vehicleId": f"EV_{n}",
            "timestamp": at,
            "soc": round(max(0.0, min(100.0, soc)), 1),
            "kwhDeliveredDc": round(power / 60, 6),
            "powerKw": power,
            "batteryTemp": 20.0 + n % 5 + round(power / 10, 1),
        }
        ac = max(0.0, power) / (0.89 + n / 200)
        yield {"meterId": f"METER_{n}", "timestamp": at, "kwhConsumedAc": round(ac / 60, 6), "powerKw": round(ac, 2)}


def send_fast_session(platform: Platform) -> None:
    """A session of a lorry that charges since six hours and goes on, with a gap and a reset."""
    end = now()
    begin = text(end - timedelta(days=1))
    vehicle, meter = "LORRY_00012", "METER_00012"
    declared = {"site": "Depot North-East", "timeZone": "Europe/Berlin", "intervalS": 60, "ratedKw": 400}
    with client(platform) as http:
        http.put(f"/v1/devices/vehicles/{vehicle}", json=declared).raise_for_status()
        http.put(f"/v1/devices/meters/{meter}", json=declared).raise_for_status()
        http.put(f"/v1/meters/{meter}/assignments/{begin}", json={"vehicleId": vehicle}).raise_for_status()
    readings: list[dict[str, Any]] = []
    for minute in (*range(360, 200, -1), *range(190, -1, -1)):
        at = text(end - minute * _MINUTE)
        register = (360 - minute) * 6.5 if minute > 100 else (100 - minute) * 6.5
        readings.append(
            {
                "vehicleId": vehicle,
                "timestamp": at,
                "soc": 12 + 88 * (1 - minute / 360),
                "powerKw": 360.0,
                "kwhDeliveredDc": 6.0,
            }
        )
        readings.append({"meterId": meter, "timestamp": at, "kwhImportRegister": register, "powerKw": 390.0})
    send(platform, readings)


def send_many(platform: Platform, count: int) -> None:
    """The latest reading of so many vehicles and meters."""
    at = text(now())
    vehicles = [
        {"vehicleId": f"FLEET_{n:05}", "timestamp": at, "soc": n % 101, "powerKw": (n % 3 - 1) * 7.0}
        for n in range(count)
    ]
    meters = [{"meterId": f"FLEET_{n:05}", "timestamp": at, "powerKw": 7.7, "voltage": 230.0} for n in range(count)]
    send(platform, [*vehicles, *meters])


def store_quarters(platform: Platform, vehicle: str, days: int) -> None:
    """A reading each quarter of an hour of a vehicle, for so many days up to now.

    Days older than devices may send are attached with their readings. They must be new, and the vehicle known before:
    the keeper summarizes a day that is attached for the devices that it knows.
    """
    quarter = timedelta(minutes=15)
    oldest = now().replace(hour=0, minute=0, second=0) - timedelta(days=_SENT_DAYS)
    sent = range((now() - oldest) // quarter + 1)
    values = {"vehicleId": vehicle, "soc": 50, "kwhDeliveredDc": 1.0, "powerKw": 4.0}
    send(platform, [{**values, "timestamp": text(oldest + n * quarter)} for n in sent])
    platform.postgres.sql(
        f"""
        SELECT ensure_partition('vehicle_telemetry_history', day::date)
        FROM generate_series('{oldest:%F}'::date - {days - _SENT_DAYS}, '{oldest:%F}'::date - 1, '1 day') AS day;
        INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc, kwh_delivered_dc, power_kw)
        SELECT '{vehicle}', at, extract(epoch FROM at)::int8 / 60 % 101, 1, 4
        FROM generate_series('{text(oldest - timedelta(days=days - _SENT_DAYS))}'::timestamptz,
                             '{text(oldest - quarter)}', '15 min') AS at
        """,
        platform.database,
    )


def wait_until_year_is_answered(platform: Platform, vehicle: str) -> None:
    """Wait until all questions of the page about a vehicle's current year are answered, with the energy up to today.

    One that needs too many days of readings is refused. The keeper takes a moment to notice days that were attached:
    until then they have no energy.
    """
    year = now().replace(month=1, day=1, hour=0, minute=0, second=0)
    period = {"from": text(year), "to": text(year.replace(year=year.year + 1))}
    questions: dict[str, dict[str, Any]] = {
        "/v1/analytics/energy": {"of": "vehicles", "id": vehicle, "bucket": "month", "tz": "UTC"},
        f"/v1/analytics/series/vehicles/{vehicle}": {"measure": ["soc", "powerKw", "batteryTemp"], "points": 600},
        "/v1/sessions": {"vehicle": vehicle, "limit": 200},
        f"/v1/analytics/performance/{vehicle}": {},
    }
    today = now().replace(hour=0, minute=0, second=0)
    stored = float(
        platform.postgres.sql(
            f"SELECT coalesce(sum(kwh_delivered_dc), 0) FROM vehicle_telemetry_history WHERE vehicle_id = '{vehicle}' "
            f"AND ts >= '{period['from']}' AND ts < '{text(today)}'",
            platform.database,
        )
    )
    with client(platform) as http:

        def are_answered() -> bool:
            answers = [http.get(path, params=period | query) for path, query in questions.items()]
            if not all(answer.is_success for answer in answers):
                return False
            kwh = sum(item["kwhDc"] or 0 for item in answers[0].json()["items"])
            return bool(kwh > stored - 2)  # the interval at the year's begin is divided

        wait_until(are_answered, "the questions of the page are answered with the energy", timeout_s=90)
