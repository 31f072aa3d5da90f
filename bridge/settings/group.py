"""A group of settings: a model whose fields are read from the variables `FLEET_<FIELD>` of a mapping."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

PREFIX = "FLEET_"

RENAMED = {
    "batch_age_ms": "batch_wait_ms",
    "capacity": "buffer_capacity",
    "command_timeout_s": "write_timeout_s",
    "http_batch_age_ms": "http_batch_wait_ms",
    "http_connections": "http_max_connections",
    "http_head_bytes": "http_head_max_bytes",
    "http_read_connections": "query_pool_size",
    "http_read_timeout_s": "query_timeout_s",
    "http_shutdown_s": "http_shutdown_timeout_s",
    "http_timeout_s": "commit_timeout_s",
    "keep_alive_s": "mqtt_keep_alive_s",
    "range_limit_days": "query_range_limit_days",
    "receive_maximum": "mqtt_receive_maximum",
    "session_expiry_s": "mqtt_session_expiry_s",
    "stall_s": "stall_timeout_s",
}
"""Names of version 0.1 that are still read, and their new names."""


class Group(BaseModel):
    """Settings that belong together. A program composes groups by inheritance."""

    model_config = ConfigDict(frozen=True)

    title: ClassVar[str]
    """The heading under which docs/settings.md lists the fields."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from variables; other variables are ignored. Raises `ValidationError`."""
        given = settings_in(environ)
        renamed = {new: given[old] for old, new in RENAMED.items() if old in given}
        return cls.model_validate(renamed | given)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"{PREFIX}{name.upper()}"


def settings_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The `FLEET_*` variables, by the name of their field. Names are case-sensitive; an empty variable is not set."""
    ours = ((name, value) for name, value in environ.items() if name.startswith(PREFIX) and name.isupper() and value)
    return {name.removeprefix(PREFIX).lower(): value for name, value in ours}


def misspelled_in(environ: Mapping[str, str]) -> list[str]:
    """The variables that would be settings if they were in upper case."""
    return sorted(name for name in environ if name.upper().startswith(PREFIX) and not name.isupper())


def problems(error: ValidationError, environ: Mapping[str, str]) -> str:
    """The validation errors, one per line: the variable as it is spelled in `environ`, and the reason."""
    given = settings_in(environ)
    spelled = {new: old for old, new in RENAMED.items() if old in given and new not in given}
    return "\n".join(
        f"{variable(spelled.get(name, name))}: {reason}" if name else reason for name, reason in reasons(error)
    )


def reasons(error: ValidationError) -> Iterator[tuple[str, str]]:
    """The field of each validation error, empty for the whole group, and the reason."""
    for problem in error.errors():
        yield "_".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
