"""The pictures of docs/figures.md: `python -m scripts.figures` draws them again.

Each module is one picture. It computes its numbers with `api.energy`, the algebra that answers the API's requests, and
draws what it has computed. So a picture cannot contradict the code, and a change of a rule changes the files.
"""

from collections.abc import Mapping

from scripts.figures import (
    assignments,
    boundary,
    coverage,
    efficiency,
    local_days,
    registers,
    sessions,
    temperature,
)
from scripts.figures.canvas import Picture

PICTURES: Mapping[str, Picture] = {
    "boundary": boundary.PICTURE,
    "registers": registers.PICTURE,
    "assignments": assignments.PICTURE,
    "coverage": coverage.PICTURE,
    "efficiency": efficiency.PICTURE,
    "temperature": temperature.PICTURE,
    "local-days": local_days.PICTURE,
    "sessions": sessions.PICTURE,
}
"""By the name of the file in docs/figures, without its extension."""
