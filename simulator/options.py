"""The command line's options that `run` and `replay` share, and how they become a route."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bridge.settings.options import option
from bridge.settings.simulator import SimulatorSettings, VerifySettings
from simulator.carriers import Route, Via
from simulator.endpoints import Api, broker_of
from simulator.profiles import PLAIN, REAL, Shares

USUAL = SimulatorSettings()
"""The defaults of the settings."""

MqttUrl = Annotated[str, option(SimulatorSettings, "mqtt_url")]
CaFile = Annotated[str | None, option(SimulatorSettings, "mqtt_ca_file")]
CertFile = Annotated[str | None, option(SimulatorSettings, "mqtt_cert_file")]
KeyFile = Annotated[str | None, option(SimulatorSettings, "mqtt_key_file")]
ApiUrl = Annotated[str | None, option(SimulatorSettings, "api_url")]
ApiKey = Annotated[str | None, option(SimulatorSettings, "api_key")]
DatabaseUrl = Annotated[str, option(VerifySettings, "database_url")]
ViaOption = Annotated[Via, typer.Option(help="How readings travel; both: every second connection over HTTP.")]
Connections = Annotated[int, typer.Option(min=1, max=1000, help="Connections that the devices share.")]
HttpBatch = Annotated[int, typer.Option(min=1, max=10_000, help="Readings a POST; 1: single readings.")]
Receipts = Annotated[float, typer.Option(min=0, max=1, help="Share of MQTT messages that ask for a receipt.")]
Assignments = Annotated[bool, typer.Option(help="Tell the API which vehicle each meter feeds.")]
LedgerFile = Annotated[Path | None, typer.Option(help="A new file; ledger-<time> in this directory by default.")]
Fsync = Annotated[bool, typer.Option("--fsync", help="The ledger reaches the disk before its messages leave.")]
Name = Annotated[str, typer.Option(help="Put before every device id: a fleet of its own.")]


def _share(meaning: str) -> Any:
    return typer.Option(min=0, max=1, help=meaning, rich_help_panel="Devices, as shares of all devices")


ProfileOption = Annotated[
    Literal["plain", "real"],
    typer.Option(
        help="plain: every device sends the same measures once a minute; real: a share of each property below.",
        rich_help_panel="Devices, as shares of all devices",
    ),
]
Registers = Annotated[float | None, _share("Counters beside the interval energy or instead of it; lost readings.")]
NoTemperature = Annotated[float | None, _share("Vehicles without a battery temperature.")]
NoVoltage = Annotated[float | None, _share("Meters without a voltage.")]
Power = Annotated[float | None, _share("Power as well.")]
Fast = Annotated[float | None, _share("A reading every 10 s.")]
Slow = Annotated[float | None, _share("A reading every 15 min.")]
Sentinels = Annotated[float | None, _share("65535, -127, unknown or null as the value of a gauge now and then.")]
CountersAsIntervals = Annotated[float | None, _share("A counter in the field of the interval energy.")]


def shares_of(profile: Literal["plain", "real"], **given: float | None) -> Shares:
    """The profile's shares with those that are given. Raises `typer.BadParameter` when paces exceed all devices."""
    usual = asdict(REAL if profile == "real" else PLAIN)
    shares = Shares(**(usual | {name: share for name, share in given.items() if share is not None}))
    if shares.fast + shares.slow > 1:
        raise typer.BadParameter("--fast and --slow are together at most 1")
    return shares


def route_of(
    *,
    via: Via,
    connections: int,
    mqtt_url: str,
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
    """The route that these options name. Raises `typer.BadParameter` when they do not fit together."""
    api = Api(api_url.rstrip("/"), api_key) if api_url and api_key else None
    if via != "mqtt" and api is None:
        raise typer.BadParameter(f"--via {via} needs --api-url and --api-key")
    if via == "both" and connections < 2:
        raise typer.BadParameter("--via both needs two connections at least")
    if (mqtt_cert_file is None) != (mqtt_key_file is None):
        raise typer.BadParameter("FLEET_MQTT_CERT_FILE and FLEET_MQTT_KEY_FILE belong together")
    identity = (mqtt_cert_file, mqtt_key_file) if mqtt_cert_file and mqtt_key_file else None
    try:
        broker = broker_of(mqtt_url, mqtt_ca_file, identity) if via != "http" else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    path = ledger or Path(f"ledger-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    if path.exists():
        raise typer.BadParameter(f"{path} exists; a ledger is a new file")
    return Route(via, connections, broker, api, http_batch, receipts, assignments, path, fsync)
