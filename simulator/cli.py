"""Command line of the simulator: `python -m simulator run | replay | verify`."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
import uvloop
from rich.console import Console

from bridge.command_line import VersionOption
from bridge.progress import on_terminal
from bridge.settings.groups import LogSettings
from bridge.startup import configured
from bridge.url import database_host
from simulator import findings
from simulator.carriers import Route
from simulator.contact import Unreachable
from simulator.converters import CONVERTERS
from simulator.database import ERRORS as DATABASE_ERRORS
from simulator.endpoints import Api
from simulator.faults import ALL_FAULTS, FaultRates
from simulator.http import UnexpectedAnswer
from simulator.ledger_reader import DamagedLedger, read_ledger
from simulator.mqtt import Refused
from simulator.options import (
    USUAL,
    ApiKey,
    ApiUrl,
    Assignments,
    CaFile,
    CertFile,
    Connections,
    CountersAsIntervals,
    DatabaseUrl,
    Fast,
    Fsync,
    HttpBatch,
    KeyFile,
    LedgerFile,
    MqttUrl,
    MqttVersion,
    Name,
    NoTemperature,
    NoVoltage,
    Partial,
    Power,
    ProfileOption,
    Receipts,
    Registers,
    Sentinels,
    Slow,
    ViaOption,
    route_of,
    shares_of,
)
from simulator.pacing import start_for
from simulator.progress import summary
from simulator.questions import NoAnswer
from simulator.recordings import NotARecording
from simulator.replay import recorded, totals
from simulator.replay import replay as send
from simulator.run import Plan
from simulator.run import run as run_plan
from simulator.tally import Tally
from simulator.verify import verify as compare
from simulator.verify_figures import Sample

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Simulated fleet with a ledger of its readings.",
)

Rate = Annotated[float | None, typer.Option(min=0, max=1, rich_help_panel="Faults, as shares of all readings")]


@app.callback()
def begin(_version: VersionOption = False) -> None:
    """Read the settings that every command has."""
    configured(LogSettings)


@app.command()
def run(
    vehicles: Annotated[int, typer.Option(min=0)] = 100,
    meters: Annotated[int | None, typer.Option(min=0, help="Default: the number of vehicles.")] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="Simulated minutes. Default: until Ctrl-C.")] = None,
    speed: Annotated[float, typer.Option(min=0, help="1: real time; 60: one hour per minute; 0: unlimited.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed and start produce the same bytes.")] = 1,
    start: Annotated[
        datetime | None, typer.Option(help="First minute (UTC). Default: the run ends at the current time.")
    ] = None,
    name: Name = "",
    prepare: Annotated[bool, typer.Option("--prepare", help="Generate all readings before the first is sent.")] = False,
    mqtt_url: MqttUrl = USUAL.mqtt_url,
    mqtt_version: MqttVersion = USUAL.mqtt_version,
    mqtt_ca_file: CaFile = None,
    mqtt_cert_file: CertFile = None,
    mqtt_key_file: KeyFile = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    via: ViaOption = "mqtt",
    connections: Connections = 16,
    http_batch: HttpBatch = 500,
    receipts: Receipts = 0.0,
    assignments: Assignments = True,
    ledger: LedgerFile = None,
    fsync: Fsync = False,
    all_faults: Annotated[
        bool, typer.Option("--all-faults", help="Enable every fault, at its default rate unless given.")
    ] = False,
    duplicates: Rate = None,
    out_of_order: Rate = None,
    late: Rate = None,
    offline: Rate = None,
    malformed: Rate = None,
    wrong_clock: Rate = None,
    conflict: Rate = None,
    profile: ProfileOption = "plain",
    registers: Registers = None,
    no_temperature: NoTemperature = None,
    no_voltage: NoVoltage = None,
    power: Power = None,
    fast: Fast = None,
    slow: Slow = None,
    sentinels: Sentinels = None,
    counters_as_intervals: CountersAsIntervals = None,
    partial: Partial = None,
) -> None:
    """Simulate a fleet for the given minutes or until Ctrl-C; then send delayed readings and wait for all acks."""
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
    shares = shares_of(
        profile,
        registers=registers,
        no_temperature=no_temperature,
        no_voltage=no_voltage,
        power=power,
        fast=fast,
        slow=slow,
        sentinels=sentinels,
        counters_as_intervals=counters_as_intervals,
        partial=partial,
    )
    begin = start.replace(tzinfo=UTC, second=0, microsecond=0) if start else None
    begin = begin or start_for(speed, minutes or 0, datetime.now(UTC))
    plan = Plan(
        seed=seed,
        vehicles=vehicles,
        meters=vehicles if meters is None else meters,
        name=name,
        start=begin,
        minutes=minutes,
        speed=speed,
        rates=_rates(all_faults, given),
        shares=shares,
        prepare=prepare,
    )
    route = route_of(
        via=via,
        connections=connections,
        mqtt_url=mqtt_url,
        mqtt_version=mqtt_version,
        mqtt_ca_file=mqtt_ca_file,
        mqtt_cert_file=mqtt_cert_file,
        mqtt_key_file=mqtt_key_file,
        api_url=api_url,
        api_key=api_key,
        http_batch=http_batch,
        receipts=receipts,
        assignments=assignments,
        ledger=ledger,
        fsync=fsync,
    )
    _carry_out(route, lambda stop, console: run_plan(plan, route, stop, console))


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Recordings, merged by time.")],
    form: Annotated[
        str | None,
        typer.Option("--as", help=f"{', '.join(CONVERTERS)}. Default: detected."),
    ] = None,
    times: Annotated[Literal["shift", "keep"], typer.Option(help="shift: newest reading is now; keep.")] = "shift",
    speed: Annotated[float, typer.Option(min=0, help="1: as recorded; 60: one hour per minute; 0: unlimited.")] = 0,
    name: Name = "",
    mqtt_url: MqttUrl = USUAL.mqtt_url,
    mqtt_version: MqttVersion = USUAL.mqtt_version,
    mqtt_ca_file: CaFile = None,
    mqtt_cert_file: CertFile = None,
    mqtt_key_file: KeyFile = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    via: ViaOption = "mqtt",
    connections: Connections = 2,
    http_batch: HttpBatch = 500,
    receipts: Receipts = 0.0,
    assignments: Assignments = True,
    ledger: LedgerFile = None,
    fsync: Fsync = False,
) -> None:
    """Send recordings. With --times keep, the bridge rejects readings older than FLEET_PAST_LIMIT_DAYS."""
    if form is not None and form not in CONVERTERS:
        raise typer.BadParameter(f"--as must be one of {', '.join(CONVERTERS)}")
    end = datetime.now(UTC).replace(microsecond=0) if times == "shift" else None
    try:
        readings = recorded(files, form, name, end)
    except (NotARecording, OSError) as error:
        raise _failure(Console(), str(error)) from None
    route = route_of(
        via=via,
        connections=connections,
        mqtt_url=mqtt_url,
        mqtt_version=mqtt_version,
        mqtt_ca_file=mqtt_ca_file,
        mqtt_cert_file=mqtt_cert_file,
        mqtt_key_file=mqtt_key_file,
        api_url=api_url,
        api_key=api_key,
        http_batch=http_batch,
        receipts=receipts,
        assignments=assignments,
        ledger=ledger,
        fsync=fsync,
    )
    _carry_out(route, lambda stop, console: send(readings, files, speed, route, stop, console))
    for line in totals(readings):
        Console().print(line, highlight=False, soft_wrap=True)


@app.command()
def verify(
    ledger: Annotated[Path, typer.Argument(help="A ledger of `run` or `replay`.")],
    database_url: DatabaseUrl,
    wait: Annotated[float, typer.Option(min=0, help="Maximum seconds to wait for readings in transit.")] = 60,
    figures: Annotated[
        int, typer.Option(min=-1, help="Vehicles and meters whose figures the API is asked for; 0: none, -1: all.")
    ] = 24,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Compare a ledger with the database, and figures of the API with the ledger.

    Exits with 1 if there is any difference, with 2 if it cannot compare.
    """
    console = Console()
    try:
        content = read_ledger(ledger)
    except (DamagedLedger, OSError) as error:
        raise _failure(console, str(error), 2) from None
    if not content.complete:
        console.print(f"the run did not end regularly ({content.torn_bytes} incomplete bytes): no simulated truth")
    if not len(content):
        raise _failure(console, "the ledger contains no message: nothing was verified")
    try:
        sample = _sample(figures, api_url, api_key, console)
        with on_terminal() as stages:
            result = asyncio.run(compare(content, database_url, wait, figures=sample, stages=stages))
    except NoAnswer as error:
        raise _failure(console, f"the API does not answer: {error}", 2) from None
    except DATABASE_ERRORS as error:
        reason = f"the database {database_host(database_url)} cannot be read: {type(error).__name__}: {error}"
        raise _failure(console, reason, 2) from None
    findings.show(result, console)
    raise typer.Exit(0 if result.clean else 1)


def _sample(count: int, url: str | None, key: str | None, console: Console) -> Sample | None:
    """Whose figures are compared; None if there is no API to ask."""
    if not count:
        return None
    if not (url and key):
        console.print("the figures of the API are not compared: FLEET_API_URL or FLEET_API_KEY is not set")
        return None
    return Sample(Api(url.rstrip("/"), key), count if count > 0 else None)


def _rates(all_faults: bool, given: dict[str, float | None]) -> FaultRates:
    usual = asdict(ALL_FAULTS if all_faults else FaultRates())
    return FaultRates(**{name: usual[name] if rate is None else rate for name, rate in given.items()})


def _carry_out(route: Route, work: Callable[[asyncio.Event, Console], Awaitable[Tally]]) -> None:
    """Run it so that the first Ctrl-C ends it in order and the second immediately."""

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
    failure: BaseException | None = None
    try:
        tally = uvloop.run(carry_out())
    except* (Refused, UnexpectedAnswer, Unreachable) as failures:
        failure = _first(failures)
    if failure is not None:  # Python 3.11.2 wraps what is raised in `except*` in a group
        raise _failure(console, str(failure))
    console.print(summary(tally, tally.sent / (time.monotonic() - started)), soft_wrap=True, highlight=False)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure in nested exception groups."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def _failure(console: Console, text: str, code: int = 1) -> typer.Exit:
    console.print(text, style="bold red", soft_wrap=True, markup=False)
    return typer.Exit(code)
