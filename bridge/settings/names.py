"""The names that some program of ours reads."""

import difflib

from bridge.settings.programs import PROGRAMS, Programs


def known(programs: Programs = PROGRAMS) -> frozenset[str]:
    """Every field of every program."""
    return frozenset(name for kinds in programs.values() for kind in kinds for name in kind.model_fields)


def nearest(name: str) -> str | None:
    """The known name that is most similar, if any is."""
    return next(iter(difflib.get_close_matches(name, sorted(known()), n=1)), None)
