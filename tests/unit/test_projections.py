"""The live row from the picked readings equals the one from all of them, for any previous live row."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from bridge.contract import KINDS, VEHICLE, Kind
from bridge.reading import Reading, reading
from bridge.store.live_rows import LiveRows
from bridge.store.tables import identity
from tests.readings import SEED_TIME


class LiveRow(NamedTuple):
    """What the live table keeps of a device."""

    at: datetime
    values: dict[str, float]
    extra: dict[str, Any] | None


Live = dict[str, LiveRow]


def applied(live: Live, r: Reading) -> Live:
    """What the statement does with one row: nothing unless it is newer, else `coalesce(new, old)`."""
    before = live.get(r.device)
    if before is not None and r.timestamp <= before.at:
        return live
    values = {} if before is None else before.values
    return {**live, r.device: LiveRow(r.timestamp, {**values, **r.values()}, r.extra)}


def applied_in_rounds(live: Live, staged: Sequence[Reading], rounds: int) -> Live:
    """Of each device the oldest staged row that is newer than the live one, in each round."""
    for _ in range(rounds):
        newer = [r for r in staged if r.device not in live or r.timestamp > live[r.device].at]
        chosen: dict[str, Reading] = {}
        for r in newer:
            chosen.setdefault(r.device, r)
        if rounds == 1:
            assert len({r.device for r in staged}) == len(staged), "one statement cannot touch a row twice"
        for r in chosen.values():
            live = applied(live, r)
    return live


def _batch(kind: Kind) -> st.SearchStrategy[list[Reading]]:
    values = {m.column: st.floats(m.least, m.most) for m in kind.measures}
    some = st.fixed_dictionaries({}, optional=values).filter(bool)
    times = st.integers(0, 8).map(lambda minute: SEED_TIME + timedelta(minutes=minute))
    extra = st.none() | st.just({"firmware": 1})
    one = st.builds(reading, st.just(kind), st.sampled_from(["A", "B", "C"]), times, some, extra)
    return st.lists(one, unique_by=identity, max_size=8).map(lambda readings: sorted(readings, key=identity))


@given(st.one_of(*(st.tuples(batch, batch) for batch in map(_batch, KINDS))))
def test_picked_rows_in_rounds_make_the_same_live_row_as_all_rows_in_turn(
    batches: tuple[list[Reading], list[Reading]],
) -> None:
    earlier, batch = batches
    live: Live = {}
    for r in earlier:
        live = applied(live, r)
    expected = live
    for r in batch:
        expected = applied(expected, r)
    positions, rounds = LiveRows().pick(batch, None)
    assert positions == sorted(set(positions))
    assert applied_in_rounds(live, [batch[n] for n in positions], rounds) == expected


def test_fleet_that_always_sends_the_same_measures_takes_one_round_and_the_newest_rows() -> None:
    minutes = [SEED_TIME + timedelta(minutes=n) for n in range(5)]
    batch = [reading(VEHICLE, device, at, {"soc": 1}) for device in "AB" for at in minutes]
    assert LiveRows().pick(batch, None) == ([4, 9], 1)


def test_device_that_sends_measures_in_turn_takes_as_many_rounds_as_rows_still_say_something() -> None:
    columns = ["soc", "power_kw", "soc", "power_kw", "battery_temp"]
    batch = [reading(VEHICLE, "A", SEED_TIME + timedelta(minutes=n), {column: n}) for n, column in enumerate(columns)]
    assert LiveRows().pick(batch, None) == ([2, 3, 4], 3)
