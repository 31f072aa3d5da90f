"""Readings that the tests share: the seed's two, and any number of valid ones made from them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

from hypothesis import strategies as st

from bridge.contract import METER, VEHICLE, Kind
from bridge.reading import Reading, device_id, reading

SEED_VEHICLE = (
    b'{"vehicleId":"EV_002","soc":72.5,"kwhDeliveredDc":4.25,"batteryTemp":38.6,"timestamp":"2026-02-10T10:15:00Z"}'
)
SEED_METER = b'{"meterId":"METER_001","kwhConsumedAc":5.1,"voltage":231.5,"timestamp":"2026-02-10T10:15:00Z"}'
SEED_TIME = datetime(2026, 2, 10, 10, 15, tzinfo=UTC)


@cache
def now_minute() -> datetime:
    """The minute that had just begun when the test first asked: device times near it are inside every accepted window.

    It is the same throughout a test, so that two readings of "now" are of one time.
    """
    return datetime.now(UTC).replace(second=0, microsecond=0)


def vehicle(name: str = "EV_002", at: datetime | None = None, soc: float = 72.5, **extra: object) -> Reading:
    values = {"soc": soc, "kwh_delivered_dc": 4.25, "battery_temp": 38.6}
    return reading(VEHICLE, device_id(name), at or now_minute(), values, extra or None)


def meter(name: str = "METER_001", at: datetime | None = None, kwh: float = 5.1) -> Reading:
    return reading(METER, device_id(name), at or now_minute(), {"kwh_consumed_ac": kwh, "voltage": 231.5})


def minutes(name: str, count: int, end: datetime | None = None) -> Iterator[Reading]:
    """`count` readings of one vehicle, a minute apart, the last at `end`."""
    end = end or now_minute()
    return (vehicle(name, end - timedelta(minutes=count - 1 - n), soc=n % 100) for n in range(count))


ids = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
_times = st.datetimes(datetime(2026, 1, 1), datetime(2026, 3, 1), timezones=st.just(UTC))  # noqa: DTZ001
_scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    _scalars | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def readings_of(kind: Kind) -> st.SearchStrategy[Reading]:
    """Readings with any of the kind's measures, but at least one."""
    values = {m.column: st.floats(m.least, m.most) for m in kind.measures}
    some = st.fixed_dictionaries({}, optional=values).filter(bool)
    return st.builds(reading, st.just(kind), ids, _times, some)


vehicles, meters = readings_of(VEHICLE), readings_of(METER)
readings = vehicles | meters
