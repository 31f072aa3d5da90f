"""How a vehicle, its charger and a smart meter behave. Pure functions; units are in the names.

The battery is an open-circuit voltage in series with a resistance, which results in a CC-CV curve: the current is
constant until the terminals reach 4.2 V a cell, and decays from there. The charger loses a fixed overhead (pumps,
contactors, control units) and a share of its power, so that slow charging has high losses: 13-24 % at 2.3 kW and 6-10 %
at 11 kW, the range measured on production cars. Sources are in docs/simulator.md.
"""

from math import pi, sin

EMPTY_CELL_V = 3.35
CELL_RISE_V = 0.84
FULL_CELL_V = 4.2
NOMINAL_CELL_V = 3.75
RESISTANCE_V_PER_C = 0.15
"""Voltage across the pack's resistance at 1 C (the current that fills the pack in an hour)."""
MOST_C = 1.0

PROPORTIONAL_LOSS = 0.045
LEAST_OVERHEAD_KW = 0.2
MOST_OVERHEAD_KW = 0.43
COMFORT_C = 25.0
DISCOMFORT_K = 35.0

HEAT_KWH_PER_K_KWH = 0.0017
"""6 kg of pack a kWh at about 1 kJ/(kg K)."""
COOLING_MINUTES = 240.0
MAINS_V = 233.0
LINE_OHM = 0.3
PHASE_V = 230.0


def accepted_kw(capacity_kwh: float, soc: float) -> float:
    """The maximum DC power of the battery at this state of charge (%): constant current, then constant voltage."""
    rest_v = EMPTY_CELL_V + CELL_RISE_V * soc / 100
    rate_c = min(MOST_C, (FULL_CELL_V - rest_v) / RESISTANCE_V_PER_C)
    return capacity_kwh * rate_c * (rest_v + RESISTANCE_V_PER_C * rate_c) / NOMINAL_CELL_V


def overhead_kw(battery_temp_c: float) -> float:
    """The fixed losses of charging: lowest at 25 degC, highest 35 K from there (heating or cooling)."""
    share = min(1.0, abs(battery_temp_c - COMFORT_C) / DISCOMFORT_K)
    return LEAST_OVERHEAD_KW + (MOST_OVERHEAD_KW - LEAST_OVERHEAD_KW) * share


def dc_of_ac_kw(ac_kw: float, battery_temp_c: float) -> float:
    """DC power into the battery when the charger draws `ac_kw`; 0 when the losses exceed it."""
    return max(0.0, ac_kw * (1 - PROPORTIONAL_LOSS) - overhead_kw(battery_temp_c))


def ac_of_dc_kw(dc_kw: float, battery_temp_c: float) -> float:
    """AC power that the charger draws (feeds back: negative) for `dc_kw` into (out of: negative) the battery."""
    if dc_kw == 0:
        return 0.0
    lost_kw = overhead_kw(battery_temp_c)
    if dc_kw > 0:
        return (dc_kw + lost_kw) / (1 - PROPORTIONAL_LOSS)
    return dc_kw * (1 - PROPORTIONAL_LOSS) + lost_kw


def battery_heat_kw(capacity_kwh: float, dc_kw: float, charger_loss_kw: float) -> float:
    """Heat in the battery: from its resistance, and a fifth of the charger's losses through the shared coolant."""
    rate_c = dc_kw / capacity_kwh
    return capacity_kwh * rate_c * rate_c * RESISTANCE_V_PER_C / NOMINAL_CELL_V + 0.2 * charger_loss_kw


def next_temp_c(temp_c: float, ambient_c: float, heat_kw: float, capacity_kwh: float) -> float:
    """The battery's temperature a minute later: heated by the losses, cooled towards the ambient temperature."""
    return temp_c + heat_kw / 60 / (HEAT_KWH_PER_K_KWH * capacity_kwh) - (temp_c - ambient_c) / COOLING_MINUTES


def ambient_temp_c(minute_of_day: int) -> float:
    """Ambient temperature of a mild day: minimum at 3 a.m., maximum at 3 p.m."""
    return 12 + 6 * sin(2 * pi * (minute_of_day / 1440 - 0.375))


def sagging_v(no_load_v: float, ac_kw: float, phases: int) -> float:
    """The voltage at the meter, reduced by the line's resistance times the current of each phase."""
    return no_load_v - LINE_OHM * ac_kw * 1000 / (PHASE_V * phases)
