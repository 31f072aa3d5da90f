"""The models agree with measurements of real vehicles and meters, and conserve energy."""

from itertools import pairwise
from random import Random

import pytest

from simulator import physics
from simulator.vehicle import Vehicle

TEMPERATURES = [-20.0, -10.0, 0.0, 12.0, 25.0, 40.0, 60.0]


@pytest.mark.parametrize("temp_c", TEMPERATURES)
@pytest.mark.parametrize(("ac_kw", "least", "most"), [(11.0, 0.06, 0.10), (2.3, 0.13, 0.24)])
def test_losses_lie_in_the_measured_range(ac_kw: float, least: float, most: float, temp_c: float) -> None:
    lost = 1 - physics.dc_of_ac_kw(ac_kw, temp_c) / ac_kw
    assert least <= lost <= most


def test_losses_are_least_at_a_comfortable_temperature() -> None:
    assert physics.overhead_kw(25) < physics.overhead_kw(10) < physics.overhead_kw(-10)
    assert physics.overhead_kw(25) < physics.overhead_kw(45)


@pytest.mark.parametrize("temp_c", TEMPERATURES)
@pytest.mark.parametrize("ac_kw", [2.3, 3.7, 7.4, 11.0, 22.0])
def test_ac_and_dc_are_each_other_s_inverse(ac_kw: float, temp_c: float) -> None:
    assert physics.ac_of_dc_kw(physics.dc_of_ac_kw(ac_kw, temp_c), temp_c) == pytest.approx(ac_kw)


def test_feeding_the_grid_loses_energy_too() -> None:
    assert -3.7 < physics.ac_of_dc_kw(-3.7, 20) < -3.0
    assert physics.ac_of_dc_kw(0, 20) == 0


def test_charge_curve_is_constant_current_then_constant_voltage() -> None:
    curve = [physics.accepted_kw(60, soc) for soc in range(101)]
    peak = curve.index(max(curve))
    assert 80 <= peak <= 90
    # Constant current: the power rises with the voltage alone, a quarter over the whole range.
    assert all(a < b for a, b in pairwise(curve[: peak + 1]))
    assert curve[0] > 0.8 * curve[peak]
    # Constant voltage: the current dies away.
    assert all(a > b for a, b in pairwise(curve[peak:]))
    assert 0 < curve[100] < 0.1 * curve[peak]


def test_voltage_sags_with_load_and_more_on_one_phase() -> None:
    assert physics.sagging_v(233, 0, 1) == 233
    assert 227 < physics.sagging_v(233, 11, 3) < 230
    assert physics.sagging_v(233, 7.4, 1) < physics.sagging_v(233, 7.4, 3)
    assert physics.sagging_v(233, -3, 1) > 233


def test_battery_warms_with_heat_and_cools_to_its_surroundings() -> None:
    assert physics.next_temp_c(20, 20, 0.5, 60) > 20
    temp_c = 40.0
    for _ in range(24 * 60):
        temp_c = physics.next_temp_c(temp_c, 10, 0, 60)
    assert temp_c == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("charger_kw", [2.3, 11.0, 22.0])
@pytest.mark.parametrize("seed", range(10))
def test_energy_is_conserved_in_every_minute_of_two_days(seed: int, charger_kw: float) -> None:
    random = Random(seed)
    vehicle = Vehicle(random)
    charged_kwh = 0.0
    for minute in range(2880):
        before_soc = vehicle.soc
        vehicle.pass_minute(random, minute % 1440, 12, charger_kw if vehicle.wants_plug else 0.0)
        stored_kwh = (vehicle.soc - before_soc) / 100 * vehicle.capacity_kwh
        through_kwh = vehicle.dc_micro / 1e6
        if vehicle.wants_plug:
            assert stored_kwh == pytest.approx(through_kwh, abs=1e-9)
        else:
            assert through_kwh == 0
            assert stored_kwh <= 0
        assert vehicle.ac_kw / 60 >= through_kwh
        assert vehicle.ac_kw <= charger_kw * 1.001
        assert 0 <= vehicle.soc <= 100.001
        assert 0 < vehicle.battery_temp_c < 60
        charged_kwh += max(0.0, through_kwh)
    assert charged_kwh > 5
