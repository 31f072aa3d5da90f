"""A group of settings: a model whose fields are read from the variables `FLEET_<FIELD>` of a mapping."""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

PREFIX = "FLEET_"


class Group(BaseModel):
    """Settings that belong together. A program composes groups by inheritance."""

    model_config = ConfigDict(frozen=True)

    title: ClassVar[str]
    """The heading under which docs/settings.md lists the fields."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """The settings from these variables; others are ignored. Raises `ValidationError`."""
        return cls.model_validate(settings_in(environ))


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"{PREFIX}{name.upper()}"


def settings_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The `FLEET_*` variables, by the name of their field."""
    prefixed = ((name.upper(), value) for name, value in environ.items())
    return {name.removeprefix(PREFIX).lower(): value for name, value in prefixed if name.startswith(PREFIX)}


def problems(error: ValidationError) -> str:
    """What is wrong, a line each: the variable and the reason."""
    lines = []
    for problem in error.errors():
        name = "_".join(map(str, problem["loc"]))
        reason = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{variable(name)}: {reason}" if name else reason)
    return "\n".join(lines)
