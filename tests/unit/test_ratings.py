"""When the energy of an interval is implausible, by the device's declaration or by default."""

import pytest

from bridge.contract import KINDS, METER, VEHICLE, Kind
from bridge.reading import Reading, reading
from bridge.store.ratings import Ratings
from tests.readings import SEED_TIME, meter, vehicle


def of(kind: Kind, device: str, kwh: float | None) -> Reading:
    """A reading of so much energy in its interval."""
    assert kind.interval is not None
    first = kind.measures[0] if kind.measures[0] is not kind.interval else kind.measures[1]
    return reading(kind, device, SEED_TIME, {kind.interval.column: kwh, first.column: 1})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_default_is_the_kinds_rated_power_over_the_default_interval(kind: Kind) -> None:
    limit = kind.rated_kw / 60
    readings = [of(kind, "D", kwh) for kwh in (limit, -limit, 0, None, limit * 1.001, -limit * 1.001)]
    assert Ratings(60).implausible(kind, readings) == readings[-2:]
    assert Ratings(120).implausible(kind, readings) == []


def test_seed_readings_are_plausible() -> None:
    ratings = Ratings(60)
    assert ratings.implausible(VEHICLE, [vehicle()]) == ratings.implausible(METER, [meter()]) == []


def test_declared_power_and_interval_count_for_their_device_alone() -> None:
    ratings = Ratings(60)
    ratings.declare(
        [("vehicle", "SLOW", None, 6.0), ("vehicle", "SELDOM", 900.0, None), ("meter", "BOTH", 900.0, 22.0)]
    )
    names = ["SLOW", "SELDOM", "OTHER"]
    suspects = [r.device for r in ratings.implausible(VEHICLE, [of(VEHICLE, name, 0.2) for name in names])]
    assert suspects == ["SLOW"]
    suspects = [r.device for r in ratings.implausible(VEHICLE, [of(VEHICLE, name, -9) for name in names])]
    assert suspects == ["SLOW", "OTHER"]
    assert ratings.implausible(METER, [of(METER, "BOTH", 5.5), of(METER, "SLOW", 16)]) == []
    assert len(ratings.implausible(METER, [of(METER, "BOTH", 5.6), of(METER, "SLOW", 17)])) == 2


def test_declaring_replaces_what_was_declared_before() -> None:
    ratings = Ratings(60)
    slow = of(VEHICLE, "SLOW", 0.2)
    ratings.declare([("vehicle", "SLOW", None, 6.0)])
    assert ratings.implausible(VEHICLE, [slow]) == [slow]
    ratings.declare([("vehicle", "FAST", None, 6.0), ("boat", "SLOW", None, 6.0)])
    assert ratings.implausible(VEHICLE, [slow]) == []


def test_warning_names_field_energy_power_and_the_registers_to_use() -> None:
    ratings = Ratings(60)
    code, field, detail = ratings.warning(of(METER, "M", 900))
    assert (code, field) == ("implausible", "kwhConsumedAc")
    assert detail.startswith("900 kWh in 60 s is 54,000 kW, more than the rated 1000 kW")
    assert "kwhImportRegister or kwhExportRegister" in detail
    ratings.declare([("meter", "M", 900.0, 22.0)])
    assert ratings.warning(of(METER, "M", -9)).detail.startswith("-9 kWh in 900 s is 36 kW, more than the rated 22 kW")
