"""Assignments: ends, conflicts, deletion, the list, and imports."""

import asyncio
import csv
import io
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.assigning import Period, Plan
from bridge.reading import format_timestamp
from tests.integration.api.server import Connection, assert_problem

pytestmark = pytest.mark.anyio

EPOCH = datetime(2026, 2, 10, tzinfo=UTC)
ALL = "/v1/assignments"
CSV = {"Content-Type": "text/csv"}
Row = tuple[int, str | None]
"""The minute of a begin, and the vehicle."""


def at(minute: int) -> str:
    return format_timestamp(EPOCH + timedelta(minutes=minute))


def path_of(minute: int, meter: str = "M") -> str:
    return f"/v1/meters/{meter}/assignments/{at(minute)}"


async def put(
    client: httpx.AsyncClient, minute: int, vehicle: str | None, to: int | None = None, replace: bool = False
) -> httpx.Response:
    body = {"vehicleId": vehicle} | ({} if to is None else {"to": at(to)})
    return await client.put(path_of(minute), json=body, params={"replace": "true"} if replace else {})


async def patch(client: httpx.AsyncClient, minute: int, to: int | None, **query: str) -> httpx.Response:
    return await client.patch(path_of(minute), json={"to": None if to is None else at(to)}, params=query)


async def rows(db: Connection, meter: str = "M") -> list[Row]:
    found = await db.fetch("SELECT * FROM meter_assignment WHERE meter_id = $1 ORDER BY valid_from", meter)
    return [((row["valid_from"] - EPOCH) // timedelta(minutes=1), row["vehicle_id"]) for row in found]


async def trail(db: Connection) -> list[tuple[str, dict[str, Any]]]:
    found = await db.fetch("SELECT action, detail FROM audit_log WHERE actor LIKE 'key:%' ORDER BY id")
    return [(row["action"], json.loads(row["detail"])) for row in found]


async def every(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await client.get(ALL, params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def item(meter: str, vehicle: str | None, start: int, to: int | None = None) -> dict[str, str | None]:
    times = {"from": at(start)} | ({} if to is None else {"to": at(to)})
    return {"meterId": meter, "vehicleId": vehicle, **times}


async def test_end_is_set_with_the_assignment(client: httpx.AsyncClient, db: Connection) -> None:
    created = await put(client, 0, "A", 10)
    assert (created.status_code, created.json()["to"]) == (201, at(10))
    assert (await put(client, 0, "A", 10)).status_code == 200
    assert await rows(db) == [(0, "A"), (10, None)]
    assert (await put(client, 10, "B")).status_code == 200  # no vehicle was assigned from there
    assert (await put(client, 0, "A")).json()["to"] == at(10)
    assert await rows(db) == [(0, "A"), (10, "B")]
    assert [detail.get("to") for _, detail in await trail(db)] == ["2026-02-10T00:10:00+00:00", None]


async def test_end_must_be_after_the_begin(client: httpx.AsyncClient, db: Connection) -> None:
    assert_problem(await put(client, 10, "A", 10), 422, "to: ")
    await put(client, 10, "A")
    assert_problem(await patch(client, 10, 9), 422, "to: ")
    assert_problem(await client.patch(path_of(10), json={"to": "soon"}), 422, "to: ")
    assert_problem(await client.patch(path_of(10), json={"vehicleId": "B"}), 422, "vehicleId: ")
    assert await rows(db) == [(10, "A")]


async def test_another_vehicle_at_the_same_instant_is_a_conflict(client: httpx.AsyncClient, db: Connection) -> None:
    await put(client, 0, "A")
    problem = assert_problem(await put(client, 0, "B"), 409, "from: meter M is assigned to A from " + at(0))
    assert problem["errors"][0]["field"] == "from"
    assert_problem(await put(client, 0, None), 409, "A")
    assert await rows(db) == [(0, "A")]
    assert (await put(client, 0, "B", replace=True)).status_code == 200
    assert await rows(db) == [(0, "B")]
    action, detail = (await trail(db))[-1]
    assert (action, [each["vehicleId"] for each in detail["replaced"]]) == ("assignment.put", ["A"])


async def test_end_beyond_the_next_vehicle_is_a_conflict(client: httpx.AsyncClient, db: Connection) -> None:
    await put(client, 10, "B", 30)
    for answer in (await put(client, 0, "A", 20), await put(client, 0, "B", 20)):
        assert_problem(answer, 409, "to: meter M is assigned to B from " + at(10))
    assert await rows(db) == [(10, "B"), (30, None)]
    assert (await put(client, 0, "A", 10)).status_code == 201
    assert_problem(await patch(client, 0, 20), 409)
    assert (await patch(client, 0, 20, replace="true")).json()["to"] == at(20)
    assert await rows(db) == [(0, "A"), (20, "B"), (30, None)]  # B was split and continues


@pytest.mark.parametrize(("vehicle", "to"), [("B", 15), ("B", 20), ("B", 30), ("A", 15), (None, 15)], ids=repr)
async def test_assignment_with_an_end_is_not_cut_silently(
    vehicle: str | None, to: int, client: httpx.AsyncClient, db: Connection
) -> None:
    await put(client, 0, "A", 20)
    expected = f"from: meter M is assigned to A from {at(0)} to {at(20)}"
    assert_problem(await put(client, 10, vehicle, to), 409, expected)
    assert_problem(await client.post(ALL, json=[item("M", vehicle, 10, to)]), 409, f"index 0: {expected}")
    assert await rows(db) == [(0, "A"), (20, None)]


async def test_replacing_lets_what_it_cuts_continue_up_to_its_end(client: httpx.AsyncClient, db: Connection) -> None:
    await put(client, 0, "A", 20)
    assert (await put(client, 10, "B", 15, replace=True)).status_code == 201
    assert await rows(db) == [(0, "A"), (10, "B"), (15, "A"), (20, None)]
    cut = {"meterId": "M", "from": "2026-02-10T00:00:00+00:00", "to": "2026-02-10T00:20:00+00:00", "vehicleId": "A"}
    assert (await trail(db))[-1][1]["replaced"] == [cut]
    assert (await put(client, 10, "B", 15)).status_code == 200  # it is no conflict to repeat it
    assert (await client.delete(path_of(10))).status_code == 204
    assert [(each["vehicleId"], each["from"], each["to"]) for each in await every(client, vehicle="A")] == [
        ("A", at(0), at(15)),
        ("A", at(15), at(20)),
    ]


async def test_assignment_is_prolonged_and_ended_by_a_later_begin(client: httpx.AsyncClient, db: Connection) -> None:
    """The meter's last assignment has no end yet, and time that feeds no vehicle is nobody's."""
    await put(client, 0, "A", 20)
    assert (await put(client, 10, "A", 30)).status_code == 201
    assert await rows(db) == [(0, "A"), (10, "A"), (30, None)]
    assert (await put(client, 25, None)).status_code == 201
    await put(client, 60, "E")
    assert (await put(client, 40, "C", 50)).status_code == 201
    assert (await put(client, 70, "F", 80)).status_code == 201
    assert [row for row in await rows(db) if row[1] is not None or row[0] > 30] == [
        *[(0, "A"), (10, "A"), (40, "C"), (50, None), (60, "E"), (70, "F"), (80, None)]
    ]


@pytest.mark.parametrize("to", [12, 20, 30])
async def test_assignment_up_to_the_next_one_is_not_cut_silently(
    to: int, client: httpx.AsyncClient, db: Connection
) -> None:
    """Shifts that adjoin, one of which is stated in the middle of another."""
    shifts = [item("M", "A", 0, 20), item("M", "B", 20, 40)]
    assert (await client.post(ALL, json=shifts)).status_code == 200
    expected = f"from: meter M is assigned to A from {at(0)} to {at(20)}"
    assert_problem(await put(client, 10, "X", to), 409, expected)
    assert await rows(db) == [(0, "A"), (20, "B"), (40, None)]
    assert (await put(client, 10, "X", 12, replace=True)).status_code == 201
    assert await rows(db) == [(0, "A"), (10, "X"), (12, "A"), (20, "B"), (40, None)]


async def test_begins_without_ends_may_be_stated_in_any_order(client: httpx.AsyncClient, db: Connection) -> None:
    for minute, vehicle in ((0, "A"), (40, "C"), (20, "B"), (30, None), (10, "D")):
        assert (await put(client, minute, vehicle)).status_code == 201
    assert await rows(db) == [(0, "A"), (10, "D"), (20, "B"), (30, None), (40, "C")]
    assert (await put(client, 25, "E")).status_code == 201


async def test_import_that_moves_an_end_assigns_the_time_after_it(client: httpx.AsyncClient, db: Connection) -> None:
    await put(client, 0, "A", 20)
    assert (await client.post(ALL, json=[item("M", "A", 0, 10), item("M", "B", 10, 15)])).status_code == 200
    assert await rows(db) == [(0, "A"), (10, "B"), (15, None), (20, None)]


async def test_replacing_ends_what_begins_within(client: httpx.AsyncClient, db: Connection) -> None:
    for minute, vehicle in ((5, "B"), (10, None), (15, "C"), (20, None), (40, "D")):
        await put(client, minute, vehicle)
    assert (await put(client, 0, "A", 30, replace=True)).status_code == 201
    assert await rows(db) == [(0, "A"), (30, None), (40, "D")]
    assert [each["vehicleId"] for each in (await trail(db))[-1][1]["replaced"]] == ["B", "C"]


async def test_end_is_moved_and_opened_again(client: httpx.AsyncClient, db: Connection) -> None:
    await put(client, 0, "A")
    await put(client, 40, "B")
    for minute in (20, 10, 30, 40, 25):
        assert (await patch(client, 0, minute)).json()["to"] == at(minute)
    assert await rows(db) == [(0, "A"), (25, None), (40, "B")]
    assert (await patch(client, 0, None)).json()["to"] == at(40)
    assert (await patch(client, 0, None)).json()["to"] == at(40)
    assert (await client.patch(path_of(0), json={})).json()["to"] == at(40)
    assert (await patch(client, 40, None)).json()["to"] is None
    assert await rows(db) == [(0, "A"), (40, "B")]
    assert_problem(await patch(client, 7, 20), 404, "begins at")
    acts = [action for action, _ in await trail(db)]
    assert acts == ["assignment.put"] * 2 + ["assignment.patch"] * 6  # the end at 40 was there: B begins


async def test_deletion_is_recorded(client: httpx.AsyncClient, db: Connection) -> None:
    await put(client, 0, "A")
    await put(client, 10, "B")
    assert (await client.delete(path_of(10))).status_code == 204
    assert_problem(await client.delete(path_of(10)), 404)
    assert await rows(db) == [(0, "A")]
    assert (await trail(db))[-1] == (
        "assignment.delete",
        {"from": "2026-02-10T00:10:00+00:00", "vehicleId": "B"},
    )


async def test_list_of_all_is_filtered_and_paged(client: httpx.AsyncClient) -> None:
    await client.post(ALL, json=[item("M_1", "A", 0, 10), item("M_1", "B", 20), item("M_2", "A", 5, 30)])

    async def begins(**query: str) -> list[tuple[str, str | None, str]]:
        return [(each["meterId"], each["vehicleId"], each["from"]) for each in await every(client, **query)]

    whole = [
        ("M_1", "A", at(0)),
        ("M_1", None, at(10)),
        ("M_1", "B", at(20)),
        ("M_2", "A", at(5)),
        ("M_2", None, at(30)),
    ]
    assert await begins() == whole
    assert await begins(meter="M_2") == whole[3:]
    assert await begins(vehicle="A") == [whole[0], whole[3]]
    assert await begins(at=at(10)) == [whole[1], whole[3]]
    assert await begins(at=at(9), meter="M_1") == [whole[0]]
    assert await begins(**{"from": at(10), "to": at(20)}) == [whole[1], whole[3]]
    assert await begins(**{"from": at(30)}) == [whole[2], whole[4]]
    assert await begins(to=at(0)) == []
    paged: list[str] = []
    url: httpx.URL | str | None = f"{ALL}?limit=2"
    while url is not None:
        answer = await client.get(url)
        paged += [each["from"] for each in answer.json()["items"]]
        url = answer.url.join(answer.links["next"]["url"]) if "next" in answer.links else None
    assert paged == [begin for *_, begin in whole]
    assert_problem(await client.get(ALL, params={"at": "now"}), 422, "at: ")
    assert_problem(await client.get(ALL, params={"cursor": "x"}), 422, "cursor: ")


async def test_csv_of_all_comes_back_in(client: httpx.AsyncClient, db: Connection) -> None:
    await client.post(ALL, json=[item("-1", "A", 0, 10), item("-1", "B", 20), item("M", "A", 5, 30)])
    before = await every(client)
    text = (await client.get(ALL, headers={"Accept": "text/csv"})).text
    lines = list(csv.reader(io.StringIO(text, newline="")))
    assert lines[:3] == [
        ["meterId", "vehicleId", "from", "to"],
        ["'-1", "A", "2026-02-10T00:00:00.000000Z", "2026-02-10T00:10:00.000000Z"],
        ["'-1", "", "2026-02-10T00:10:00.000000Z", "2026-02-10T00:20:00.000000Z"],
    ]
    await db.execute("DELETE FROM meter_assignment")
    imported = await client.post(ALL, content=text, headers=CSV)
    assert imported.json() == {"rows": 5, "created": 5, "changed": 0, "unchanged": 0, "ends": 0}
    kept = ("meterId", "vehicleId", "from", "to")
    assert [[each[name] for name in kept] for each in await every(client)] == [
        [each[name] for name in kept] for each in before
    ]
    again = await client.post(ALL, content=text, headers=CSV)
    assert (again.json()["unchanged"], again.json()["ends"]) == (5, 0)


async def test_next_row_of_the_same_body_wins_over_an_end(client: httpx.AsyncClient, db: Connection) -> None:
    body = [item("M", "C", 30, 40), item("M", "A", 0, 15), item("M", "B", 10, 30), item("N", "A", 5, 7)]
    answer = await client.post(ALL, json=body)
    assert answer.json() == {"rows": 4, "created": 4, "changed": 0, "unchanged": 0, "ends": 2}
    assert await rows(db) == [(0, "A"), (10, "B"), (30, "C"), (40, None)]
    ((action, detail),) = await trail(db)
    assert (action, detail["created"], detail["replaced"]) == ("assignment.import", 4, [])


async def test_import_with_conflicts_writes_nothing_unless_it_replaces(
    client: httpx.AsyncClient, db: Connection
) -> None:
    await put(client, 0, "A")
    await put(client, 20, "B")
    text = f"meterId,vehicleId,from,to\nN,Z,{at(0)},\nM,X,{at(0)},\nM,Y,{at(10)},{at(30)}\n"
    problem = assert_problem(await client.post(ALL, content=text, headers=CSV), 409, "line 3: from: meter M")
    assert [(e["line"], e["field"]) for e in problem["errors"]] == [(3, "from"), (4, "to")]
    assert await rows(db) == [(0, "A"), (20, "B")]
    assert await rows(db, "N") == []
    answer = await client.post(f"{ALL}?replace=true", content=text, headers=CSV)
    assert answer.json() == {"rows": 3, "created": 2, "changed": 1, "unchanged": 0, "ends": 2}
    assert await rows(db) == [(0, "X"), (10, "Y"), (30, "B")]
    assert [each["vehicleId"] for each in (await trail(db))[-1][1]["replaced"]] == ["A", "B"]


@pytest.mark.parametrize(
    ("body", "place", "field"),
    [
        ([item("M", "A", 0), item("M", "A", 0)], 1, "from"),
        ([item("M", "A", 0), item("M", "B", 10, 10)], 1, "to"),
        ([item("M", "A b", 0)], 0, "vehicleId"),
        ([{"meterId": "M", "from": at(0)}], 0, "vehicleId"),
        ([{**item("M", "A", 0), "x": 1}], 0, "x"),
        ([{**item("M", "A", 0), "from": "2026-02-10T00:00:00"}], 0, "from"),
        ([{**item("M", "A", 0), "to": "9999-12-31T23:59:59Z"}], 0, "to"),
    ],
)
async def test_bad_row_is_named_and_nothing_is_written(
    client: httpx.AsyncClient, db: Connection, body: list[Mapping[str, object]], place: int, field: str
) -> None:
    problem = assert_problem(await client.post(ALL, json=body), 422, f"index {place}: {field}: ")
    assert [(e["index"], e["field"]) for e in problem["errors"]] == [(place, field)]
    assert await db.fetchval("SELECT count(*) FROM meter_assignment") == 0


async def test_ten_thousand_in_one_request(client: httpx.AsyncClient, db: Connection) -> None:
    lines = [f"M_{n % 5000:05},EV_{n:05},{at(60 * (n // 5000))},{at(60 * (n // 5000) + 30)}" for n in range(10_000)]
    text = "\r\n".join(["meterId,vehicleId,from,to", *lines])
    for expected in (
        {"created": 10_000, "unchanged": 0, "ends": 10_000},
        {"created": 0, "unchanged": 10_000, "ends": 0},
    ):
        answer = await client.post(ALL, content=text, headers=CSV)
        assert answer.json() == {"rows": 10_000, "changed": 0, **expected}
    assert await db.fetchval("SELECT count(*) FROM meter_assignment WHERE vehicle_id IS NOT NULL") == 10_000
    exported = await client.get(ALL, headers={"Accept": "text/csv"})
    assert exported.text.count("\r\n") == 20_001


async def test_one_of_two_vehicles_at_a_time_wins(client: httpx.AsyncClient, db: Connection) -> None:
    for minute in range(0, 40, 10):
        answers = await asyncio.gather(*(put(client, minute, f"EV_{n}", minute + 5) for n in range(8)))
        assert sorted(answer.status_code for answer in answers)[1:] == [409] * 7
    assert len(await rows(db)) == 8


class _Model:
    """The rows of one meter by minute, as an import with `replace=true` leaves them."""

    def __init__(self, table: Mapping[int, str | None], begins: Collection[int]) -> None:
        self.table = dict(table)
        self.cut: set[Row] = set()
        self._before, self._begins = table, begins

    def _cut_by(self, start: int, end: int | None, vehicle: str | None) -> tuple[str | None, int]:
        """The vehicle whose end is after a period's begin and would not be so any more, and that end."""
        begin = max((minute for minute in self._before if minute <= start), default=start)
        until = min((minute for minute in self._before if minute > start), default=start)
        fed = self._before.get(begin)
        is_cut = end is not None and (end < until or vehicle not in (None, fed))
        if begin in (start, *self._begins) or until == start or not is_cut:
            return None, until
        if fed is not None:
            self.cut.add((begin, fed))
        return fed, until

    def put(self, start: int, end: int | None, vehicle: str | None, marker: bool) -> None:
        cut, until = self._cut_by(start, end, vehicle)
        if end is not None:
            within = [begin for begin in self.table if start < begin < end]
            tail = self.table[max(within)] if within else None
            if cut is not None and end < until:
                tail = cut
            if marker:
                self.table.setdefault(end, None if tail == vehicle else tail)
            for begin in within:
                del self.table[begin]
        self.table[start] = vehicle


_vehicles = st.sampled_from([None, "A", "B"])
_minutes = st.integers(0, 12)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(_minutes, _vehicles, max_size=6),
    written=st.dictionaries(_minutes, st.tuples(st.none() | st.integers(1, 6), _vehicles), max_size=4),
)
def test_statements_agree_with_the_model(
    shared_table: "tuple[asyncio.AbstractEventLoop, asyncpg.Connection[asyncpg.Record]]",
    before: dict[int, str | None],
    written: dict[int, tuple[int | None, str | None]],
) -> None:
    loop, connection = shared_table

    async def replaced_and_table() -> tuple[set[Row], dict[int, str | None]]:
        await connection.execute("DELETE FROM meter_assignment")
        instant = {n: EPOCH + timedelta(minutes=n) for n in range(40)}
        begins = [("M", instant[minute], vehicle) for minute, vehicle in before.items()]
        await connection.executemany("INSERT INTO meter_assignment VALUES ($1, $2, $3)", begins)
        periods = [
            Period("M", instant[start], None if length is None else instant[start + length], vehicle)
            for start, (length, vehicle) in written.items()
        ]
        conflicts = await Plan(periods).conflicts(connection)
        await Plan(periods).write(connection, conflicts)
        replaced = {((each.start - EPOCH) // timedelta(minutes=1), each.vehicle) for each in conflicts}
        return set(replaced), dict(await rows(connection))

    model = _Model(before, written)
    order = sorted(written)
    for n, start in enumerate(order):
        length, vehicle = written[start]
        following = order[n + 1] if n + 1 < len(order) else None
        end = None if length is None else start + length
        cut = end is not None and following is not None and following <= end
        model.put(start, following if cut else end, vehicle, not cut)
    replaced, table = loop.run_until_complete(replaced_and_table())
    assert table == model.table
    removed = {(begin, vehicle) for begin, vehicle in before.items() - table.items() if vehicle is not None}
    assert replaced == removed | model.cut


@pytest.fixture
def shared_table(database_url: str) -> Any:
    """A connection on a loop of its own, for a test that is not a coroutine."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(database_url))
    yield loop, connection
    loop.run_until_complete(connection.close())
    loop.close()
