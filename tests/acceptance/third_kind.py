"""The real programs with a third kind of device: its declaration below, its migration, and no other code.

`python -m tests.acceptance.third_kind bridge|api|mosquitto ARGUMENTS` runs one of them.
"""

import runpy
import sys

from bridge import contract
from bridge.contract import Kind, Measure

CHARGER = Kind(
    "charger",
    (
        Measure("kwhDispensed", "interval", "kWh", -500, 500, "Energy dispensed since the previous reading", 1.5),
        Measure("kwhTotalRegister", "register", "kWh", 0, 1e8, "Counter of the energy dispensed", 1234.5),
        Measure("connectorTemp", "gauge", "degC", -40, 120, "Connector temperature", 31.25),
        Measure("currentA", "gauge", "A", 0, 600, "Current", 125.0),
    ),
    rated_kw=350,
    example_id="CHARGER_001",
)
MIGRATION = """
CREATE TABLE charger_telemetry_history (
    ts                 timestamptz NOT NULL,
    received_at        timestamptz NOT NULL DEFAULT now(),
    kwh_dispensed      float8,
    kwh_total_register float8,
    connector_temp     float8,
    current_a          float8,
    charger_id         text        NOT NULL COLLATE "C",
    extra              jsonb,
    PRIMARY KEY (charger_id, ts) INCLUDE (kwh_dispensed)
) PARTITION BY RANGE (ts);
CREATE TABLE charger_live_status (
    charger_id         text        PRIMARY KEY COLLATE "C",
    ts                 timestamptz NOT NULL,
    received_at        timestamptz NOT NULL,
    kwh_dispensed      float8,
    kwh_total_register float8,
    connector_temp     float8,
    current_a          float8,
    extra              jsonb
) WITH (fillfactor = 50);
SELECT protect_history('charger_telemetry_history');
SELECT create_quarters('charger', ARRAY['connector_temp', 'current_a'], ARRAY[]::text[]);
SELECT create_hours('charger');
SELECT create_six_hours('charger');
SELECT grant_roles();
"""


def declare() -> None:
    """Add the kind to the contract; nothing that reads the contract may have been imported."""
    readers = sorted(name for name in sys.modules if name.startswith("bridge.") and name != "bridge.contract")
    assert not readers, readers
    contract.KINDS = (*contract.KINDS, CHARGER)
    contract.KIND_OF[CHARGER.name] = CHARGER


if __name__ == "__main__":
    declare()
    program = sys.argv.pop(1)
    runpy.run_module(program, run_name="__main__", alter_sys=True)
