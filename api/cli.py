"""Command line of the API: `python -m api run | openapi | key create|list|revoke|rotate`."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import asyncpg
import structlog
import typer
import uvloop

from api import keys
from api.database import Connection
from bridge import memory
from bridge.command_line import with_version
from bridge.errors import Misconfigured, StoreUnavailable
from bridge.settings.api import ApiSettings
from bridge.settings.groups import AdministrationSettings, LogSettings
from bridge.startup import configured, read
from bridge.store.database_errors import asking
from bridge.url import database_host

if TYPE_CHECKING:
    from bridge.streams.port import Stream

# A pretty traceback shows local variables, some of which are secrets.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="The HTTP service.")
key = typer.Typer(no_args_is_help=True, help="API keys.")
app.add_typer(key, name="key")
with_version(app)
log = structlog.get_logger("api")

T = TypeVar("T")


def _in_database(act: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `act` in one transaction and return its result; exit with 1 if the database cannot."""

    async def connected() -> T:
        with asking():
            connection = await asyncpg.connect(settings.database_url, timeout=10, command_timeout=10)
            try:
                async with connection.transaction():
                    return await act(connection)
            finally:
                await connection.close()

    settings = configured(AdministrationSettings)
    try:
        return asyncio.run(connected())
    except (StoreUnavailable, Misconfigured) as error:
        log.error("command failed", reason=str(error), database=database_host(settings.database_url))
        raise SystemExit(1) from None


_LONGEST = timedelta(days=36_500)
_LONGEST_NAME = 200


def _duration(text: str, least_s: int) -> timedelta:
    """`90d`, `12h`, `30m` or `45s`; at most a hundred years."""
    units_s = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    if text[-1:] in units_s and text[:-1].isdigit():
        seconds = int(text[:-1]) * units_s[text[-1]]
        if least_s <= seconds <= _LONGEST.total_seconds():
            return timedelta(seconds=seconds)
        raise typer.BadParameter(f"{text} is not between {least_s}s and {_LONGEST.days}d")
    raise typer.BadParameter("expected a number of days, hours, minutes or seconds: 90d, 12h, 30m, 45s")


@app.command()
def run() -> None:
    """Serve until SIGTERM or SIGINT, then complete the requests in progress and exit with 0.

    The settings are environment variables: docs/settings.md of the repository lists them.
    """
    from api.server import serve  # imported here, because the commands for keys start in half the time without it

    settings = configured(ApiSettings)
    try:
        memory.calm_collector()
        uvloop.run(serve(settings, _target(settings.http_ingest_target)))
    except Misconfigured as error:
        log.error("startup aborted: unsafe configuration", reason=str(error))
        raise SystemExit(2) from None
    log.info("stopped")


def _target(name: str) -> "Stream | None":
    """The stream into which readings go; None: into the database."""
    if name == "database":
        return None
    from bridge.streams.targets import TARGETS  # imported here, because most programs need no stream

    kind = TARGETS[name]
    return kind.make(read(kind.settings))


@app.command("openapi")
def openapi_() -> None:
    """Print the OpenAPI document, as JSON."""
    from starlette.responses import Response  # imported here for the same reason

    from api.app import application

    configured(LogSettings)
    print(json.dumps(application(Response()).openapi(), indent=2, ensure_ascii=False))


@key.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key's owner.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="ingest, read, assign or admin; may be repeated. Default: all but admin, or ingest for a limited key."
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Limit the key to this device or prefix: EV_1, EV_*, vehicle:EV_1; may be repeated."),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Limit the key to the devices declared at this site; may be repeated, adds to --device."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Lifetime: 90d, 12h, 30m.")] = None,
) -> None:
    """Create a key and print it; it cannot be shown again."""
    if not name.isprintable() or not 1 <= len(name) <= _LONGEST_NAME:
        raise typer.BadParameter(f"the name must have 1 to {_LONGEST_NAME} printable characters")
    lifetime = None if expires is None else _duration(expires, least_s=1)
    default = ["ingest"] if device or site else keys.DEFAULT_SCOPES
    try:
        devices, sites = (tuple(names) if names else None for names in (device, site))
        grant = keys.Grant(keys.scopes(scope or default), devices, lifetime, sites)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    print(_in_database(lambda connection: keys.create(connection, name, grant))[1])


@key.command("list")
def list_() -> None:
    """List all keys as one JSON object a line, without the secrets."""
    for row in _in_database(keys.list_keys):
        print(json.dumps(dict(row), default=lambda value: value.isoformat()))


@key.command()
def revoke(id_: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Revoke a key with immediate effect."""
    if not _in_database(lambda connection: keys.revoke(connection, id_)):
        print(f"no valid key has the id {id_}", file=sys.stderr)
        raise SystemExit(1)


@key.command()
def rotate(
    id_: Annotated[str, typer.Argument(metavar="ID")],
    overlap: Annotated[str, typer.Option(help="Time for which the old key stays valid: 7d, 12h.")] = "1d",
    expires: Annotated[
        str | None,
        typer.Option(help="Lifetime of the successor: 90d. Default: that which the old key has left."),
    ] = None,
) -> None:
    """Create a successor with the same rights and print it; the old key expires after the overlap."""
    lapse = _duration(overlap, least_s=0)
    lifetime = None if expires is None else _duration(expires, least_s=1)
    successor = _in_database(lambda connection: keys.rotate(connection, id_, lapse, lifetime=lifetime))
    if successor is None:
        print(f"no valid key has the id {id_}", file=sys.stderr)
        raise SystemExit(1)
    print(successor[1])
