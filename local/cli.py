"""Command line of the local platform: `python -m local` runs it, `python -m local secrets DIR` prepares compose."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bridge.command_line import VersionOption
from bridge.errors import Misconfigured
from bridge.settings.groups import LogSettings
from bridge.settings.local import LocalSettings
from bridge.startup import configured
from local import contract_page, settings_page
from local import secrets as compose_secrets
from local.up import up

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The whole platform on one machine, from embedded servers. Its data is in `.local` of the current "
    "directory, or in FLEET_LOCAL_DIR.",
)


@app.callback(invoke_without_command=True)
def run(context: typer.Context, _version: VersionOption = False) -> None:
    """Run PostgreSQL, Mosquitto, the bridge, the API and a small fleet until Ctrl-C."""
    if context.invoked_subcommand is not None:
        configured(LogSettings)
        return
    try:
        up(configured(LocalSettings))
    except Misconfigured as error:
        _fail(str(error), 2)
    except RuntimeError as error:
        _fail(str(error), 1)


@app.command()
def secrets(
    directory: Annotated[Path, typer.Argument(help="Directory that docker-compose.yml mounts.")] = Path("secrets"),
) -> None:
    """Create the passwords that `docker compose up` needs; existing ones are kept."""
    print(f"secrets are in {compose_secrets.make(directory)}")


@app.command()
def settings(
    page: Annotated[Path, typer.Argument(help="The page that is made from the settings.")] = Path("docs/settings.md"),
) -> None:
    """Renew docs/settings.md."""
    try:
        page.write_text(settings_page.page())
    except OSError as error:
        _fail(f"{page}: {error}", 1)


@app.command()
def contract(
    page: Annotated[Path, typer.Argument(help="The page with the generated tables.")] = Path("docs/devices.md"),
) -> None:
    """Regenerate the tables of measures in docs/devices.md."""
    try:
        page.write_text(contract_page.renewed(page.read_text()))
    except (OSError, ValueError) as error:
        _fail(f"{page}: {error}", 1)


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code)
