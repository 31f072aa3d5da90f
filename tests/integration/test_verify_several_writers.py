"""`verify` of a fleet whose devices send over MQTT and HTTP at once, and which has the database to itself."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bridge.contract import VEHICLE
from bridge.delivery import Receipt
from bridge.formats.contract_json import encode
from bridge.reading import Reading, reading
from bridge.store.postgres import PostgresStore
from simulator.database import impossible_live
from simulator.findings import Findings
from simulator.ledger import ANSWERED, PUBACK, RECEIPT, VIA_HTTP, LedgerWriter
from simulator.ledger_reader import read_ledger
from simulator.message import CONTESTED, STORED, Item
from simulator.verify import verify
from tests.readings import SEED_TIME, vehicle

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HISTORY = "INSERT INTO vehicle_telemetry_history (vehicle_id, ts, soc, kwh_delivered_dc)"
LIVE = "INSERT INTO vehicle_live_status (vehicle_id, ts, received_at)"
REJECT = "INSERT INTO rejected_message (id, received_at, source, topic, device, reason, detail, payload)"
TIMES = ("mqtt", "http", "contested")


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[dict[str, PostgresStore]]:
    opened = {source: PostgresStore(database_url, source=source, command_timeout_s=10) for source in ("mqtt", "http")}
    yield opened
    for store in opened.values():
        await store.close()


def at(name: str) -> datetime:
    return SEED_TIME + timedelta(minutes=TIMES.index(name))


class Fleet:
    """One vehicle that sends over both ways; what it was told is in its ledger."""

    def __init__(self, stores: dict[str, PostgresStore], path: Path) -> None:
        self._stores, self.path = stores, path
        self._ledger = LedgerWriter(path, {"created": datetime.now(UTC).isoformat()})
        self._ledger.device("vehicle", "C1-V")

    async def send(self, source: str, one: Reading, expect: int = STORED) -> None:
        """Send a reading and record its receipt or answer."""
        first = self._ledger.sent(0, [Item(encode(one), expect)], VIA_HTTP if source == "http" else 0)
        receipt = Receipt.of(await self._stores[source].write([one])).members()
        self._ledger.told(ANSWERED if source == "http" else RECEIPT, first, 1, receipt)

    def acknowledge_only(self, monotonic_s: float, one: Reading) -> None:
        """The broker takes a reading, and that is all."""
        self._ledger.mark(monotonic_s)
        self._ledger.acknowledged(PUBACK, self._ledger.sent(0, [Item(encode(one), STORED)], 0), 1)

    def tell_that_it_is_new(self, one: Reading) -> None:
        """A receipt that calls a reading newly stored which was there already."""
        self._ledger.told(RECEIPT, self._ledger.sent(0, [Item(encode(one), STORED)], 0), 1, {"stored": 1})

    async def verified(self, url: str, forgotten_until: float = 0.0) -> Findings:
        self._ledger.close(complete=False)
        return await verify(read_ledger(self.path, forgotten_until), url, 0, "C1-")


@pytest.fixture
async def fleet(stores: dict[str, PostgresStore], tmp_path: Path) -> Fleet:
    """The contested reading of MQTT is stored; that of HTTP, and its repeat over MQTT, are conflicts."""
    fleet = Fleet(stores, tmp_path / "ledger")
    await fleet.send("mqtt", vehicle("C1-V", at("mqtt")))
    await fleet.send("http", vehicle("C1-V", at("http"), soc=10))
    await fleet.send("mqtt", vehicle("C1-V", at("contested"), soc=20), CONTESTED)
    for source in ("http", "mqtt"):
        await fleet.send(source, vehicle("C1-V", at("contested"), soc=30), CONTESTED)
    return fleet


async def test_contested_readings_are_as_they_should_be(fleet: Fleet, database_url: str) -> None:
    findings = await fleet.verified(database_url)
    assert findings.clean, findings.examples
    assert findings.seen["readings in the history"] == 3
    assert findings.seen["rejects as expected"] == 2


@pytest.mark.parametrize(
    ("statement", "faults"),
    [
        ("DELETE FROM rejected_message WHERE source = 'http'", {"reject missing": 1}),
        ("UPDATE rejected_message SET source = 'mqtt'", {"reject missing": 1, "reject duplicated": 1}),
        (
            "UPDATE vehicle_telemetry_history SET soc = 30 WHERE soc = 20",
            {"reject missing": 1, "reject unexpected": 2, "live differs": 1},
        ),
        (
            "UPDATE vehicle_telemetry_history SET soc = 31 WHERE soc = 20",
            {"different": 1, "reject missing": 1, "live differs": 1},
        ),
        ("UPDATE vehicle_live_status SET soc = 10", {"live differs": 1}),
        (f"{HISTORY} SELECT 'C1-V', ts - interval '1 second', soc, 0 FROM vehicle_live_status", {"invented": 1}),
        (f"{HISTORY} SELECT 'C1-X', ts, soc, 0 FROM vehicle_live_status", {"invented": 1}),
        (f"{LIVE} SELECT 'C1-X', ts, received_at FROM vehicle_live_status", {"invented": 1}),
        (f"{HISTORY} SELECT 'C11-V', ts, soc, 0 FROM vehicle_live_status", {}),
        (
            f"{REJECT} VALUES (gen_random_uuid(), now(), 'mqtt', '', 'C1-X', 'not_json', '', '')",
            {"reject unexpected": 1},
        ),
        (
            f"{REJECT} VALUES (gen_random_uuid(), now(), 'mqtt', '', NULL, 'not_json', '', 'in C1-V')",
            {"reject unexpected": 1},
        ),
        (f"{REJECT} VALUES (gen_random_uuid(), now(), 'mqtt', '', NULL, 'not_json', '', 'C2-V')", {}),
    ],
)
async def test_verify_sees_what_is_altered(
    fleet: Fleet, database_url: str, db: Db, statement: str, faults: dict[str, int]
) -> None:
    await db.execute("ALTER TABLE vehicle_telemetry_history DISABLE TRIGGER USER")  # they refuse updates
    await db.execute(statement)
    found = {name: count for name, count in (await fleet.verified(database_url)).faults.items() if count}
    assert found == faults


async def test_reading_that_is_called_new_twice_is_noticed(fleet: Fleet, database_url: str) -> None:
    fleet.tell_that_it_is_new(vehicle("C1-V", at("mqtt")))
    assert dict((await fleet.verified(database_url)).faults) == {"stored twice": 1}


@pytest.mark.parametrize(
    ("forgotten_until", "faults"), [(0.0, {"missing after PUBACK": 1, "energy differs": 1}), (10.0, {})]
)
async def test_reading_that_the_broker_forgot_is_counted_and_no_fault(
    fleet: Fleet, database_url: str, forgotten_until: float, faults: dict[str, int]
) -> None:
    fleet.acknowledge_only(5.0, vehicle("C1-V", at("mqtt") - timedelta(days=1)))
    findings = await fleet.verified(database_url, forgotten_until)
    assert {name: count for name, count in findings.faults.items() if count} == faults
    assert findings.seen["forgotten by the broker"] == (not faults)


@pytest.mark.parametrize("order", [*permutations(range(3))])
async def test_live_row_of_any_order_of_writers_is_possible_and_no_other(
    stores: dict[str, PostgresStore], db: Db, order: tuple[int, ...]
) -> None:
    """The newest lacks the soc, which is then that of any older reading."""
    values = [{"soc": 10.0}, {"soc": 20.0, "battery_temp": 1.0}, {"kwh_delivered_dc": 1.0}]
    readings = [reading(VEHICLE, "C1-V", SEED_TIME + timedelta(minutes=n), one) for n, one in enumerate(values)]
    for n in order:
        await stores["http" if n % 2 else "mqtt"].write([readings[n]])
    assert await impossible_live(db, VEHICLE, ["C1-V"]) == []
    for change in (
        "soc = 30",
        "kwh_delivered_dc = NULL",
        "kwh_delivered_dc = 2",
        "ts = ts - interval '1 s'",
        "extra = '{}'",
    ):
        altered = db.transaction()
        await altered.start()
        await db.execute(f"UPDATE vehicle_live_status SET {change}")
        assert await impossible_live(db, VEHICLE, ["C1-V"]) == ["C1-V"], change
        await altered.rollback()
    await db.execute("DELETE FROM vehicle_live_status")
    assert await impossible_live(db, VEHICLE, ["C1-V"]) == ["C1-V"]
