"""The names of all settings."""

import difflib

from bridge.settings.programs import PROGRAMS, Programs


def known(programs: Programs = PROGRAMS) -> frozenset[str]:
    """The fields of all programs."""
    return frozenset(name for kinds in programs.values() for kind in kinds for name in kind.model_fields)


def nearest(name: str) -> str | None:
    """The most similar known name, or None."""
    return next(iter(difflib.get_close_matches(name, sorted(known()), n=1)), None)
