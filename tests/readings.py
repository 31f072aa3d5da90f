"""Readings that the tests share: the seed's two, and any number of valid ones made from them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from bridge.reading import MeterReading, Reading, VehicleReading, device_id

SEED_VEHICLE = (
    b'{"vehicleId":"EV_002","soc":72.5,"kwhDeliveredDc":4.25,"batteryTemp":38.6,"timestamp":"2026-02-10T10:15:00Z"}'
)
SEED_METER = b'{"meterId":"METER_001","kwhConsumedAc":5.1,"voltage":231.5,"timestamp":"2026-02-10T10:15:00Z"}'
SEED_TIME = datetime(2026, 2, 10, 10, 15, tzinfo=UTC)


def now_minute() -> datetime:
    """The minute that has just begun: device times near it are inside every accepted window."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


def vehicle(name: str = "EV_002", at: datetime | None = None, soc: float = 72.5, **extra: object) -> VehicleReading:
    return VehicleReading(
        vehicle_id=device_id(name),
        soc=soc,
        kwh_delivered_dc=4.25,
        battery_temp=38.6,
        timestamp=at or now_minute(),
        extra=extra or None,
    )


def meter(name: str = "METER_001", at: datetime | None = None, kwh: float = 5.1) -> MeterReading:
    return MeterReading(meter_id=device_id(name), kwh_consumed_ac=kwh, voltage=231.5, timestamp=at or now_minute())


def minutes(name: str, count: int, end: datetime | None = None) -> Iterator[VehicleReading]:
    """`count` readings of one vehicle, a minute apart, the last at `end`."""
    end = end or now_minute()
    return (vehicle(name, end - timedelta(minutes=count - 1 - n), soc=n % 100) for n in range(count))


ids = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
_kwh = st.floats(-1000, 1000)
_times = st.datetimes(datetime(2026, 1, 1), datetime(2026, 3, 1), timezones=st.just(UTC))  # noqa: DTZ001
_scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    _scalars | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
vehicles = st.builds(VehicleReading, ids, _times, st.floats(0, 100), _kwh, st.floats(-60, 150), st.none())
meters = st.builds(MeterReading, ids, _times, _kwh, st.floats(0, 1000), st.none())
readings: st.SearchStrategy[Reading] = vehicles | meters
