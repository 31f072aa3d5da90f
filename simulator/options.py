"""The command line options that `run` and `replay` share, and their conversion to a route."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bridge.settings.options import option
from bridge.settings.simulator import ApiClientSettings, SimulatorSettings, VerifySettings
from simulator.carriers import Route, Via
from simulator.endpoints import Api, broker_of
from simulator.profiles import PLAIN, REAL, Shares

USUAL = SimulatorSettings()
"""The defaults of the settings."""

MqttUrl = Annotated[str, option(SimulatorSettings, "mqtt_url")]
MqttVersion = Annotated[Literal["5", "3.1.1"], option(SimulatorSettings, "mqtt_version")]
CaFile = Annotated[str | None, option(SimulatorSettings, "mqtt_ca_file")]
CertFile = Annotated[str | None, option(SimulatorSettings, "mqtt_cert_file")]
KeyFile = Annotated[str | None, option(SimulatorSettings, "mqtt_key_file")]
ApiUrl = Annotated[str | None, option(ApiClientSettings, "api_url")]
ApiKey = Annotated[str | None, option(ApiClientSettings, "api_key")]
DatabaseUrl = Annotated[str, option(VerifySettings, "database_url")]
ViaOption = Annotated[Via, typer.Option(help="Protocol; both: every second connection uses HTTP.")]
Connections = Annotated[int, typer.Option(min=1, max=1000, help="Number of connections, shared by all devices.")]
HttpBatch = Annotated[int, typer.Option(min=1, max=10_000, help="Readings per POST; 1: single readings.")]
Receipts = Annotated[float, typer.Option(min=0, max=1, help="Share of MQTT messages that request a receipt.")]
Assignments = Annotated[bool, typer.Option(help="Assign meters to vehicles through the API.")]
LedgerFile = Annotated[Path | None, typer.Option(help="Path of a new file. Default: ledger-<time> in this directory.")]
Fsync = Annotated[bool, typer.Option("--fsync", help="Sync the ledger to disk before its messages are sent.")]
Name = Annotated[str, typer.Option(help="Prefix of every device id, to separate fleets in one database.")]


def _share(meaning: str) -> Any:
    return typer.Option(min=0, max=1, help=meaning, rich_help_panel="Devices, as shares of all devices")


ProfileOption = Annotated[
    Literal["plain", "real"],
    typer.Option(
        help="plain: every device sends the same measures once a minute; real: a share of each property below.",
        rich_help_panel="Devices, as shares of all devices",
    ),
]
Registers = Annotated[float | None, _share("Counters, with or without the interval energy; lost readings.")]
NoTemperature = Annotated[float | None, _share("Vehicles without a battery temperature.")]
NoVoltage = Annotated[float | None, _share("Meters without a voltage.")]
Power = Annotated[float | None, _share("Devices that also send the power.")]
Fast = Annotated[float | None, _share("A reading every 10 s.")]
Slow = Annotated[float | None, _share("A reading every 15 min.")]
Sentinels = Annotated[float | None, _share("65535, -127, unknown or null as the value of a gauge in 1 of 10 readings.")]
CountersAsIntervals = Annotated[float | None, _share("A counter in the field of the interval energy.")]

Partial = Annotated[float | None, _share("Readings without some measures, each time others.")]


def shares_of(profile: Literal["plain", "real"], **given: float | None) -> Shares:
    """The profile's shares, overridden by the given ones. Raises `typer.BadParameter` if --fast and --slow exceed 1."""
    usual = asdict(REAL if profile == "real" else PLAIN)
    shares = Shares(**(usual | {name: share for name, share in given.items() if share is not None}))
    if shares.fast + shares.slow > 1:
        raise typer.BadParameter("the sum of --fast and --slow must be at most 1")
    return shares


def route_of(
    *,
    via: Via,
    connections: int,
    mqtt_url: str,
    mqtt_version: Literal["5", "3.1.1"],
    mqtt_ca_file: str | None,
    mqtt_cert_file: str | None,
    mqtt_key_file: str | None,
    api_url: str | None,
    api_key: str | None,
    http_batch: int,
    receipts: float,
    assignments: bool,
    ledger: Path | None,
    fsync: bool,
) -> Route:
    """The route for these options. Raises `typer.BadParameter` for contradictory ones."""
    api = Api(api_url.rstrip("/"), api_key) if api_url and api_key else None
    if via != "mqtt" and api is None:
        raise typer.BadParameter(f"--via {via} needs --api-url and --api-key")
    if via == "both" and connections < 2:
        raise typer.BadParameter("--via both needs at least two connections")
    if (mqtt_cert_file is None) != (mqtt_key_file is None):
        raise typer.BadParameter("FLEET_MQTT_CERT_FILE and FLEET_MQTT_KEY_FILE must be set together")
    identity = (mqtt_cert_file, mqtt_key_file) if mqtt_cert_file and mqtt_key_file else None
    try:
        broker = broker_of(mqtt_url, mqtt_ca_file, identity) if via != "http" else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    path = ledger or Path(f"ledger-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    if path.exists():
        raise typer.BadParameter(f"{path} exists; the ledger must be a new file")
    return Route(via, connections, broker, mqtt_version, api, http_batch, receipts, assignments, path, fsync)
