"""Every number among the settings has a least and a greatest value, and works with both."""

from datetime import UTC, datetime
from math import ceil, isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.rate import RateLimit
from bridge.formats import decode
from bridge.formats.contract_json import FORMAT, encode
from bridge.settings.api import ApiSettings
from bridge.settings.group import Group, variable
from bridge.settings.groups import WindowSettings
from bridge.settings.programs import PROGRAMS
from bridge.store.session import milliseconds
from tests.readings import vehicle
from tests.setting_limits import limits_of
from tests.unit.test_settings import refusal

NUMBERS = [
    (kind, name, least, greatest)
    for kind in sorted({kind for kinds in PROGRAMS.values() for kind in kinds}, key=lambda kind: kind.__name__)
    for name, (least, greatest) in limits_of(kind).items()
]
"""Each program's numbers, with the values between which they must be."""


def ids(value: object) -> str | None:
    return value.__name__ if isinstance(value, type) else None


@pytest.mark.parametrize(("kind", "name", "least", "greatest"), NUMBERS, ids=ids)
def test_number_is_accepted_up_to_its_limits_and_not_beyond(
    kind: type[Group], name: str, least: float, greatest: float
) -> None:
    for value in (least, greatest):
        assert getattr(kind.read({variable(name): str(value)}), name) == value
    for wrong in (least - 1, greatest + 1, "nan", "inf", "-inf", "1e300", "9" * 400):
        assert refusal(kind, {variable(name): str(wrong)}).startswith(f"{variable(name)}: ")


@given(st.data())
def test_every_accepted_window_decodes(data: st.DataObject) -> None:
    """No accepted limit leads out of the years that a time can have."""
    limits = limits_of(WindowSettings)
    fields = {name: data.draw(st.floats(*limits[name]) | st.sampled_from(limits[name])) for name in limits}
    now = datetime(2026, 2, 10, tzinfo=UTC)
    times = WindowSettings.model_validate(fields).accepted_window.at(now)
    assert times.earliest < now <= times.latest
    assert decode(FORMAT, encode(vehicle("EV_1", now)), None, times, 1)[0].kind is not None


@pytest.mark.parametrize(("kind", "name", "least", "greatest"), NUMBERS, ids=ids)
def test_time_limit_is_one_for_postgresql(kind: type[Group], name: str, least: float, greatest: float) -> None:
    if name.endswith("timeout_s"):
        for value in (least, greatest):
            assert 0 < int(milliseconds(value)) < 2**31


@given(st.data())
def test_wait_for_a_request_is_finite(data: st.DataObject) -> None:
    limits = limits_of(ApiSettings)
    per_s, burst = (data.draw(st.sampled_from(limits[name])) for name in ("rate_limit_per_s", "rate_limit_burst"))
    rate = RateLimit(float(per_s), 1)
    assert rate.wait_s("key", 0.0) == 0
    assert isfinite(ceil(rate.wait_s("key", 0.0)))
    assert RateLimit(float(per_s), int(burst)).wait_s("key", 1e9) == 0
