"""The projections that every transaction writes. A projection is one module and one line here. Pure."""

from bridge.store.live_rows import LiveRows
from bridge.store.projection import Projection

PROJECTIONS: tuple[Projection, ...] = (LiveRows(),)
"""In the order in which they are written, after the history of the same kind."""
