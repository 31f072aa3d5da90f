"""Settings that are options of a command line as well."""

from typing import Any

import typer

from bridge.settings.group import Group, variable


def option(kind: type[Group], name: str, *declarations: str) -> Any:
    """An option for one setting: without it the variable counts, and without that the parameter's default."""
    return typer.Option(*declarations, envvar=variable(name), help=kind.model_fields[name].description)
