"""Command line of the simulator: `python -m simulator run | replay | verify`."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from simulator import findings
from simulator.carriers import Route, Via
from simulator.endpoints import Api, broker_of
from simulator.faults import ALL_FAULTS, FaultRates
from simulator.http import UnexpectedAnswer
from simulator.ledger_reader import DamagedLedger, read_ledger
from simulator.mqtt import Refused
from simulator.pacing import start_for
from simulator.progress import summary
from simulator.run import Plan
from simulator.run import run as run_plan
from simulator.tally import Tally
from simulator.verify import verify as compare

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A simulated fleet that proves what arrived.")

MqttUrl = Annotated[
    str, typer.Option(envvar="FLEET_MQTT_URL", help="mqtt[s]://[user:password@]host[:port]", show_envvar=True)
]
CaFile = Annotated[
    str | None, typer.Option(envvar="FLEET_MQTT_CA_FILE", help="CA of the broker's certificate, for mqtts.")
]
ApiUrl = Annotated[str | None, typer.Option(envvar="FLEET_API_URL", help="The API; without it no assignments.")]
ApiKey = Annotated[str | None, typer.Option(envvar="FLEET_API_KEY", help="A key of the API.")]
ViaOption = Annotated[Via, typer.Option(help="How readings travel; both: every second connection over HTTP.")]
Connections = Annotated[int, typer.Option(min=1, max=1000, help="Connections that the devices share.")]
HttpBatch = Annotated[int, typer.Option(min=1, max=10_000, help="Readings a POST; 1: single readings.")]
Receipts = Annotated[float, typer.Option(min=0, max=1, help="Share of MQTT messages that ask for a receipt.")]
LedgerOption = Annotated[Path | None, typer.Option(help="A new file; ledger-<time> in this directory by default.")]
Fsync = Annotated[
    bool, typer.Option("--fsync", help="Each block of the ledger reaches the disk before its messages leave.")
]
Rate = Annotated[float | None, typer.Option(min=0, max=1, rich_help_panel="Faults, as shares of all readings")]


@app.command()
def run(
    vehicles: Annotated[int, typer.Option(min=0)] = 100,
    meters: Annotated[int | None, typer.Option(min=0, help="As many as vehicles by default.")] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="Simulated minutes; until Ctrl-C by default.")] = None,
    speed: Annotated[float, typer.Option(min=0, help="1: real time; 60: an hour a minute; 0: as fast as it goes.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed and start give the same bytes.")] = 1,
    start: Annotated[
        datetime | None, typer.Option(help="First minute (UTC); such that it ends now by default.")
    ] = None,
    name: Annotated[str, typer.Option(help="Put before every device id: a fleet of its own.")] = "",
    mqtt_url: MqttUrl = "mqtt://127.0.0.1:1883",
    mqtt_ca_file: CaFile = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    via: ViaOption = "mqtt",
    connections: Connections = 16,
    http_batch: HttpBatch = 500,
    receipts: Receipts = 0.0,
    ledger: LedgerOption = None,
    fsync: Fsync = False,
    all_faults: Annotated[
        bool, typer.Option("--all-faults", help="Every fault, at its usual rate unless given.")
    ] = False,
    duplicates: Rate = None,
    out_of_order: Rate = None,
    late: Rate = None,
    offline: Rate = None,
    malformed: Rate = None,
    wrong_clock: Rate = None,
    conflict: Rate = None,
) -> None:
    """Simulate a fleet until its minutes are over or Ctrl-C; then send what is held back and wait for every ack."""
    if minutes is None and speed != 1:
        raise typer.BadParameter("a speed other than 1 needs --minutes")
    given = {
        "duplicates": duplicates,
        "out_of_order": out_of_order,
        "late": late,
        "offline": offline,
        "malformed": malformed,
        "wrong_clock": wrong_clock,
        "conflict": conflict,
    }
    begin = start.replace(tzinfo=UTC, second=0, microsecond=0) if start else None
    begin = begin or start_for(speed, minutes or 0, datetime.now(UTC))
    plan = Plan(
        seed, vehicles, vehicles if meters is None else meters, name, begin, minutes, speed, _rates(all_faults, given)
    )
    route = _route(via, connections, (mqtt_url, mqtt_ca_file), (api_url, api_key), http_batch, receipts, ledger, fsync)
    _carry_out(route, lambda stop, console: run_plan(plan, route, stop, console))


@app.command()
def verify(
    ledger: Annotated[Path, typer.Argument(help="A ledger of `run` or `replay`.")],
    database_url: Annotated[str, typer.Option(envvar="FLEET_DATABASE_URL", help="PostgreSQL, as a libpq URL.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait at most for what may still come.")] = 60,
) -> None:
    """Compare a ledger with the database. Exits with 1 when anything differs."""
    console = Console()
    try:
        content = read_ledger(ledger)
    except (DamagedLedger, OSError) as error:
        raise _failure(console, str(error)) from None
    if not content.complete:
        console.print(f"the run did not end in good order ({content.torn_bytes} torn bytes): no simulated truth")
    if not len(content):
        raise _failure(console, "nothing was sent, so nothing is proven")
    result = asyncio.run(compare(content, database_url, wait))
    findings.show(result, console)
    raise typer.Exit(0 if result.clean else 1)


def _rates(all_faults: bool, given: dict[str, float | None]) -> FaultRates:
    usual = asdict(ALL_FAULTS if all_faults else FaultRates())
    return FaultRates(**{name: usual[name] if rate is None else rate for name, rate in given.items()})


def _route(
    via: Via,
    connections: int,
    broker: tuple[str, str | None],
    api: tuple[str | None, str | None],
    http_batch: int,
    receipts: float,
    ledger: Path | None,
    fsync: bool,
) -> Route:
    url, key = api
    if via != "mqtt" and not (url and key):
        raise typer.BadParameter(f"--via {via} needs --api-url and --api-key")
    if via == "both" and connections < 2:
        raise typer.BadParameter("--via both needs two connections at least")
    try:
        to = broker_of(*broker) if via != "http" else None
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    path = ledger or Path(f"ledger-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    if path.exists():
        raise typer.BadParameter(f"{path} exists; a ledger is a new file")
    return Route(
        via, connections, to, Api(url.rstrip("/"), key) if url and key else None, http_batch, receipts, path, fsync
    )


def _carry_out(route: Route, work: Callable[[asyncio.Event, Console], Awaitable[Tally]]) -> None:
    """Run it so that the first Ctrl-C ends it in good order and the second at once."""

    async def carry_out() -> Tally:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def end() -> None:
            stop.set()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        return await work(stop, console)

    console, started = Console(), time.monotonic()
    console.print(f"ledger: {route.ledger}", soft_wrap=True, highlight=False)
    try:
        tally = uvloop.run(carry_out())
    except* (Refused, UnexpectedAnswer) as failures:
        raise _failure(console, str(failures.exceptions[0])) from None
    console.print(summary(tally, tally.sent / (time.monotonic() - started)), soft_wrap=True, highlight=False)


def _failure(console: Console, text: str) -> Any:
    console.print(text, style="bold red", soft_wrap=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
