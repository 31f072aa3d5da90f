"""How the garbage collector of a process on the path of readings is set."""

import gc

_YOUNG = 100_000


def calm_collector() -> None:
    """Let reference counts do the work: a reading is part of no cycle and gone with its batch.

    By default the collector walks everything in flight again and again (a third of the bridge's CPU). Cycles, which
    only errors leave behind, are still collected, but rarely.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
