"""How every program of ours starts: its settings, and the logs as they say."""

import os
import sys
from typing import TypeVar

from pydantic import ValidationError

from bridge import logs
from bridge.settings.group import Group, problems
from bridge.settings.groups import LogSettings

S = TypeVar("S", bound=LogSettings)
G = TypeVar("G", bound=Group)


def configured(kind: type[S]) -> S:
    """The settings from the environment, and the logs as they say. Ends the program with 2, a line for each problem."""
    settings = read(kind)
    logs.configure(settings.log_level, settings.log_format)
    return settings


def read(kind: type[G]) -> G:
    """The settings of a part of the program. Ends the program like `configured`."""
    try:
        return kind.read(os.environ)
    except ValidationError as error:
        sys.stderr.write(f"{problems(error)}\n")
        raise SystemExit(2) from None
