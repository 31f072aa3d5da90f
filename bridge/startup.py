"""How every program of ours begins: its settings, and the logs that they ask for."""

import sys
from typing import TypeVar

from pydantic import ValidationError

from bridge import logs
from bridge.settings import Settings, problems

S = TypeVar("S", bound=Settings)


def configured(kind: type[S]) -> S:
    """The settings from the environment; the logs are set by them. Ends the program with 2, a line for each problem."""
    try:
        settings = kind()
    except ValidationError as error:
        sys.stderr.write(f"{problems(error)}\n")
        raise SystemExit(2) from None
    logs.configure(settings.log_level, settings.log_format)
    return settings
