"""The names that some program of ours reads."""

from bridge.settings.programs import PROGRAMS, Programs


def known(programs: Programs = PROGRAMS) -> frozenset[str]:
    """Every field of every program."""
    return frozenset(name for kinds in programs.values() for kind in kinds for name in kind.model_fields)
