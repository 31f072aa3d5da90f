"""The option `--version` of all command lines."""

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
    """Add the option `--version` to a program that has only subcommands."""

    @app.callback()
    def program(_version: VersionOption = False) -> None:
        pass
