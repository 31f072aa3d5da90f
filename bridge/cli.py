"""Command line of the bridge: `python -m bridge run | keep | relay | migrate | rejected list|show|replay`."""

import asyncio
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import structlog
import typer
import uvloop

from bridge import audit, memory, rejects
from bridge.clock import Clock
from bridge.command_line import with_version
from bridge.errors import Misconfigured, Reason, StoreUnavailable
from bridge.private_file import read_private, write_private
from bridge.progress import on_terminal
from bridge.replay import Replay
from bridge.settings.bridge import BridgeSettings, ReplaySettings
from bridge.settings.groups import AdministrationSettings, MigrationSettings
from bridge.settings.keeper import KeeperSettings
from bridge.startup import configured, read
from bridge.store.analyst import ensure_login
from bridge.store.database_errors import asking
from bridge.store.migrate import migrate as apply_migrations
from bridge.store.migrate import widen_partition_window
from bridge.store.postgres import PostgresStore
from bridge.url import database_host

T = TypeVar("T")
_PASSWORD_REMEDY = "write the password to it, or delete it and run this again for a new one"  # noqa: S105  # no password

# A pretty traceback shows local variables, some of which are secrets.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ingest readings from MQTT into PostgreSQL.",
)
rejected = typer.Typer(no_args_is_help=True, help="Inspect and replay rejected messages.")
app.add_typer(rejected, name="rejected")
with_version(app)
log = structlog.get_logger("bridge")


def _finish(database_url: str, command: Coroutine[Any, Any, T]) -> T:
    """Return the command's result. Exit with 1 and log the reason when the database is unavailable or too new."""

    async def translate() -> T:
        with asking():
            return await command

    try:
        return asyncio.run(translate())
    except (StoreUnavailable, Misconfigured) as error:
        log.error("command failed", reason=str(error), database=database_host(database_url))
        raise SystemExit(1) from None


def _serve(program: Callable[[], Callable[[asyncio.Event], Coroutine[Any, Any, None]]]) -> None:
    """Run what `program` returns until SIGTERM or SIGINT. `Misconfigured` ends it with 2 and a line that says why."""

    async def until_signalled(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(stop)

    memory.calm_collector()
    try:
        uvloop.run(until_signalled(program()))
    except Misconfigured as error:
        log.error("startup aborted: unsafe configuration", reason=str(error))
        raise SystemExit(2) from None
    log.info("stopped")


@app.command()
def run() -> None:
    """Serve until SIGTERM or SIGINT; then commit and acknowledge the current batch, disconnect and exit with 0.

    The settings are environment variables: docs/settings.md of the repository lists them.
    """
    from bridge import sources  # imported here, because the other commands start faster without it
    from bridge.service import Bridge

    settings = configured(BridgeSettings)
    _serve(lambda: Bridge(settings, read(sources.named(settings.source).settings)).run)


@app.command()
def keep() -> None:
    """Do what has to be done in time, such as creating the partitions of the next days, until SIGTERM or SIGINT.

    The settings are environment variables: docs/settings.md of the repository lists them.
    """
    from bridge.keeper.duties import companions, duties
    from bridge.keeper.service import Keeper

    settings = configured(KeeperSettings)
    _serve(lambda: Keeper(settings, duties(settings), companions(settings)).run)


@app.command()
def relay() -> None:
    """Move messages from an MQTT broker into a stream until SIGTERM or SIGINT, each acknowledged after the stream's.

    The settings are environment variables: docs/settings.md of the repository lists them.
    """
    from bridge.relay import Relay
    from bridge.settings.relay import RelaySettings
    from bridge.streams.targets import TARGETS

    settings = configured(RelaySettings)
    target = TARGETS[settings.relay_target]
    _serve(lambda: Relay(settings, target.make(read(target.settings))).run)


@app.command()
def migrate(
    analyst: Annotated[
        str | None, typer.Option(help="Also create this login, which reads the history and the views, or update it.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the analyst's password, - for stdin. If there is none, it is created with a new password."
        ),
    ] = None,
) -> None:
    """Bring the schema up to date. May run repeatedly and concurrently."""
    if (analyst is None) != (password_file is None):
        raise typer.BadParameter("--analyst and --password-file need each other")
    settings = configured(MigrationSettings)
    url = settings.database_url
    applied = _finish(url, apply_migrations(url))
    _finish(url, widen_partition_window(url, settings.past_limit_days, settings.ahead_days))
    log.info("schema up to date", applied=applied)
    if analyst is not None and password_file is not None:
        _finish(url, ensure_login(url, analyst, _password(password_file)))
        log.info("login ready", login=analyst, password_file=str(password_file))


def _password(file: Path) -> str:
    """The password in a file, or on stdin; a new one in a private file where there is none."""
    try:
        if file == Path("-"):
            return sys.stdin.readline().rstrip("\r\n")
        if not file.exists():
            write_private(file, secrets.token_urlsafe(24))
        return read_private(file, _PASSWORD_REMEDY).rstrip("\r\n")
    except (OSError, Misconfigured) as error:
        raise SystemExit(str(error)) from None


@rejected.command("list")
def list_(
    reason: Annotated[Reason | None, typer.Option(help="List only rejects with this reason.")] = None,
    device: Annotated[str | None, typer.Option(help="List only rejects of this device.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of messages.")] = 50,
) -> None:
    """List the newest rejected messages, one JSON object per line."""
    url = configured(AdministrationSettings).database_url
    for row in _finish(url, rejects.list_rejected(url, reason, device, limit)):
        print(rejects.as_json(row))


@rejected.command()
def show(id_: Annotated[UUID, typer.Argument(metavar="ID")]) -> None:
    """Print one rejected message, with its payload, as JSON."""
    url = configured(AdministrationSettings).database_url
    row = _finish(url, rejects.show_rejected(url, id_))
    if row is None:
        print(f"there is no rejected message {id_}", file=sys.stderr)
        raise SystemExit(1)
    print(rejects.as_json(row))


@rejected.command()
def replay(
    ids: Annotated[list[UUID] | None, typer.Argument(metavar="[ID]...")] = None,
    reason: Annotated[
        Reason | None, typer.Option(help="Replay every message that was rejected for this reason.")
    ] = None,
    even_forbidden: Annotated[
        bool, typer.Option("--even-forbidden", help="Include messages whose sender was not allowed to report it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be stored and what would be rejected again.")
    ] = False,
) -> None:
    """Decode and store rejected messages again, for instance after raising a limit. Exits with 1 if any remains."""

    async def again() -> bool:
        are_stored = True
        url = settings.database_url
        stores: dict[str, PostgresStore] = {}

        def store_of(source: str) -> PostgresStore:
            return stores.setdefault(source, PostgresStore(url, source=source))

        replaying = Replay(
            store_of, settings.accepted_window, Clock(settings.clock_limit_s), audit.operator(), even_forbidden
        )
        try:
            with on_terminal() as stages:
                async for result in rejects.replay_rejected(
                    url, replaying, ids or [], reason, dry_run=dry_run, stages=stages
                ):
                    advice = "; use --even-forbidden to store it" if result.ending == "forbidden" else ""
                    print(f"{result.id} {result.detail or result.ending}{advice}")
                    are_stored = are_stored and result.ending in ("stored", "replayed")
            return are_stored
        finally:
            for store in stores.values():
                await store.close()

    if not ids and reason is None:
        raise typer.BadParameter("specify at least one ID, or --reason")
    settings = configured(ReplaySettings)
    raise SystemExit(0 if _finish(settings.database_url, again()) else 1)
