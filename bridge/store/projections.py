"""The projections that every transaction updates. A projection is a module, listed in `PROJECTIONS`. Pure."""

from bridge.store.late_marks import LateMarks
from bridge.store.live_rows import LiveRows
from bridge.store.projection import Projection

PROJECTIONS: tuple[Projection, ...] = (LiveRows(), LateMarks())
"""In the order in which they are written, after the history of the same kind."""
