"""Settings that are also command-line options."""

from typing import Any

import typer
from pydantic import ValidationError

from bridge.settings.group import Group, reasons, variable


def option(kind: type[Group], name: str, *declarations: str) -> Any:
    """An option for one setting; its default is the variable or, if that is not set, the parameter's default.

    A value that the setting does not accept is a usage error, which names the option and the variable.
    """

    def accepted(value: Any) -> Any:
        try:
            kind.model_validate({name: value})
        except ValidationError as error:
            raise typer.BadParameter("; ".join(reason for _, reason in reasons(error))) from None
        return value

    return typer.Option(
        *declarations, envvar=variable(name), help=kind.model_fields[name].description, callback=accepted
    )
