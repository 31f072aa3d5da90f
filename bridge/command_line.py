"""What the command lines of all programs have in common: `--version`."""

from typing import Annotated

import typer

from bridge.version import VERSION


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]


def with_version(app: typer.Typer) -> None:
    """Give a program whose commands are all subcommands the option `--version`."""

    @app.callback()
    def program(_version: VersionOption = False) -> None:
        pass
