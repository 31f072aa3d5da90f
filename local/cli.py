"""Command line of the local platform: `python -m local` runs it, `python -m local secrets DIR` prepares compose."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from bridge.command_line import VersionOption
from bridge.errors import Misconfigured
from bridge.settings.groups import LogSettings
from bridge.settings.local import BrokerHostSettings, LocalSettings
from bridge.startup import configured, read
from local import alarms_page, contract_page, settings_page, views_page
from local import secrets as compose_secrets
from local.up import up

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Without a command: start the whole platform on this machine, from embedded servers (PostgreSQL, Mosquitto, "
    "the bridge, the keeper, the API and a small simulated fleet), and run it until Ctrl-C. Its data is in `.local` of "
    "the current directory, or in FLEET_LOCAL_DIR.",
)
_NEEDS_CHECKOUT = "this command needs a checkout of the repository"


@app.callback(invoke_without_command=True)
def run(context: typer.Context, _version: VersionOption = False) -> None:
    """Start the platform unless there is a command."""
    if context.invoked_subcommand is not None:
        configured(LogSettings)
        return
    _up(None, 0)


@app.command("up")
def up_with(
    stream: Annotated[
        Literal["nats"] | None,
        typer.Option(help="Let devices publish to a stream instead of a broker; nats: a cluster of three nodes."),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=0, max=8, help="Streaming replicas of PostgreSQL, from which the API answers questions.")
    ] = 0,
) -> None:
    """Start the platform, as without a command, with these options."""
    _up(stream, replicas)


def _up(stream: str | None, replicas: int) -> None:
    try:
        up(configured(LocalSettings), stream, replicas)
    except Misconfigured as error:
        _fail(str(error), 2)
    except RuntimeError as error:
        _fail(str(error), 1)


@app.command()
def secrets(
    directory: Annotated[Path, typer.Argument(help="Directory that docker-compose.yml mounts.")] = Path("secrets"),
) -> None:
    """Create the passwords that `docker compose up` needs; existing ones are kept.

    FLEET_BROKER_HOSTS has the host names under which devices know the broker.
    """
    settings = read(BrokerHostSettings)
    try:
        print(f"secrets are in {compose_secrets.make(directory, settings.hosts)}")
    except (Misconfigured, OSError) as error:
        _fail(str(error), 1)


@app.command(hidden=True)
def settings(
    page: Annotated[Path, typer.Argument(help="The page that is made from the settings.")] = Path("docs/settings.md"),
) -> None:
    """Renew docs/settings.md in a checkout of the repository."""
    try:
        page.write_text(settings_page.page())
    except OSError as error:
        _fail(f"{page}: {error}; {_NEEDS_CHECKOUT}", 1)


@app.command(hidden=True)
def contract(
    page: Annotated[Path, typer.Argument(help="The page with the generated tables.")] = Path("docs/devices.md"),
) -> None:
    """Renew the tables of measures in docs/devices.md, in a checkout of the repository."""
    try:
        page.write_text(contract_page.renewed(page.read_text()))
    except (OSError, ValueError) as error:
        _fail(f"{page}: {error}; {_NEEDS_CHECKOUT}", 1)


@app.command(hidden=True)
def views(
    page: Annotated[Path, typer.Argument(help="The page with the generated tables.")] = Path("docs/views.md"),
) -> None:
    """Renew the tables of views in docs/views.md, in a checkout of the repository."""
    try:
        page.write_text(views_page.renewed(page.read_text()))
    except (OSError, ValueError) as error:
        _fail(f"{page}: {error}; {_NEEDS_CHECKOUT}", 1)


@app.command(hidden=True)
def alarms(
    page: Annotated[Path, typer.Argument(help="The page with the generated table.")] = Path("docs/operations.md"),
) -> None:
    """Renew the table of alarms in docs/operations.md, in a checkout of the repository."""
    try:
        page.write_text(alarms_page.renewed(page.read_text()))
    except (OSError, ValueError) as error:
        _fail(f"{page}: {error}; {_NEEDS_CHECKOUT}", 1)


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code)
