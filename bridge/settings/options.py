"""Settings that are also command-line options."""

from typing import Any

import typer

from bridge.settings.group import Group, variable


def option(kind: type[Group], name: str, *declarations: str) -> Any:
    """An option for one setting; its default is the variable or, if that is not set, the parameter's default."""
    return typer.Option(*declarations, envvar=variable(name), help=kind.model_fields[name].description)
