"""The start of every program: reads its settings, configures logs, and warns of unused variables."""

import os
import sys
from collections.abc import Collection
from typing import TypeVar

import structlog
from pydantic import ValidationError

from bridge import logs
from bridge.settings.group import RENAMED, Group, misspelled_in, problems, settings_in, variable
from bridge.settings.groups import LogSettings

S = TypeVar("S", bound=LogSettings)
G = TypeVar("G", bound=Group)

log = structlog.get_logger(__name__)


def configured(kind: type[S]) -> S:
    """Read the settings from the environment and configure the logs. If invalid, print each problem and exit with 2.

    Warns of variables that were renamed and of those that no program reads, even if a setting is invalid.
    """
    _configure_logs()
    _warn(settings_in(os.environ).keys(), kind.model_fields.keys())
    for name in misspelled_in(os.environ):
        log.warning("unknown setting", setting=name, nearest=name.upper())
    return read(kind)


def read(kind: type[G]) -> G:
    """Read the settings of a part of the program. Exits like `configured`."""
    try:
        return kind.read(os.environ)
    except ValidationError as error:
        sys.stderr.write(f"{problems(error, os.environ)}\n")
        raise SystemExit(2) from None


def _configure_logs() -> None:
    """Configure the logs; a wrong setting of the logs is one of the problems that `configured` prints."""
    try:
        settings = LogSettings.read(os.environ)
    except ValidationError:
        settings = LogSettings()
    logs.configure(settings.log_level, settings.log_format)


def _warn(given: Collection[str], own: Collection[str]) -> None:
    for name in sorted(RENAMED.keys() & given):
        log.warning("renamed setting", setting=variable(name), use=variable(RENAMED[name]))
    if foreign := set(given) - RENAMED.keys() - set(own):
        from bridge.settings.names import known, nearest  # here, because it loads the settings of every program

        for name in sorted(foreign - known()):
            similar = nearest(name)
            log.warning("unknown setting", setting=variable(name), nearest=similar and variable(similar))
