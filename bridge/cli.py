"""Command line of the bridge: `python -m bridge run | migrate | rejected list|show|replay`."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar
from uuid import UUID

import structlog
import typer
import uvloop

from bridge import memory, rejects
from bridge.command_line import with_version
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.settings.bridge import BridgeSettings, ReplaySettings
from bridge.settings.groups import AdministrationSettings
from bridge.startup import configured, read
from bridge.store.database_errors import asking
from bridge.store.migrate import migrate as apply_migrations
from bridge.store.postgres import PostgresStore

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The path of a reading, MQTT to PostgreSQL.")
rejected = typer.Typer(no_args_is_help=True, help="Messages that could not be readings.")
app.add_typer(rejected, name="rejected")
with_version(app)
log = structlog.get_logger("bridge")


def _finish(command: Coroutine[Any, Any, T]) -> T:
    """The command's result. A database that is not there, or too new, ends it with 1 and a line that says so."""

    async def translate() -> T:
        with asking():
            return await command

    try:
        return asyncio.run(translate())
    except (StoreUnavailable, Misconfigured) as error:
        log.error("command failed", reason=str(error))
        raise SystemExit(1) from None


@app.command()
def run() -> None:
    """Serve until SIGTERM or SIGINT; then finish the batch, commit, acknowledge, disconnect and exit with 0."""
    from bridge import sources  # here, because the other commands start faster without it
    from bridge.service import Bridge

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Bridge(settings, source_settings).run(stop)

    settings = configured(BridgeSettings)
    memory.calm_collector()
    try:
        source_settings = read(sources.named(settings.source).settings)
        uvloop.run(serve())
    except Misconfigured as error:
        log.error("startup aborted: unsafe configuration", reason=str(error))
        raise SystemExit(2) from None
    log.info("stopped")


@app.command()
def migrate() -> None:
    """Bring the schema up to date. Safe to run again, and from several places at once."""

    applied = _finish(apply_migrations(configured(AdministrationSettings).database_url))
    log.info("schema up to date", applied=applied)


@rejected.command("list")
def list_(
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
) -> None:
    """The newest rejected messages, one JSON object a line."""
    for row in _finish(rejects.list_rejected(configured(AdministrationSettings).database_url, reason, device, limit)):
        print(rejects.as_json(row))


@rejected.command()
def show(id_: Annotated[UUID, typer.Argument(metavar="ID")]) -> None:
    """One rejected message, with its payload, as JSON."""
    row = _finish(rejects.show_rejected(configured(AdministrationSettings).database_url, id_))
    if row is None:
        print(f"there is no rejected message {id_}", file=sys.stderr)
        raise SystemExit(1)
    print(rejects.as_json(row))


@rejected.command()
def replay(
    ids: Annotated[list[UUID] | None, typer.Argument(metavar="[ID]...")] = None,
    reason: Annotated[str | None, typer.Option(help="Every message rejected for this reason.")] = None,
    even_forbidden: Annotated[
        bool, typer.Option("--even-forbidden", help="Those too whose sender had no right to report the device.")
    ] = False,
) -> None:
    """Decode and store rejected messages again, for instance after widening a limit. Exits with 1 if any stays."""

    async def again() -> dict[UUID, str]:
        url, window = settings.database_url, settings.accepted_window
        stores: dict[str, PostgresStore] = {}

        def store_of(source: str) -> PostgresStore:
            return stores.setdefault(source, PostgresStore(url, source=source))

        try:
            return await rejects.replay_rejected(
                url, store_of, window, ids or [], reason, even_forbidden=even_forbidden
            )
        finally:
            for store in stores.values():
                await store.close()

    if not ids and reason is None:
        raise typer.BadParameter("give an ID, or --reason")
    settings = configured(ReplaySettings)
    results = _finish(again())
    for id_, result in results.items():
        print(f"{id_} {result}")
    raise SystemExit(0 if all(result == "stored" for result in results.values()) else 1)
