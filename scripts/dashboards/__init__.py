"""The dashboards in local/monitoring/grafana: `python -m scripts.dashboards` writes their files again.

A panel is a title, a query and a unit; `model` makes Grafana's JSON of it, with ids, positions and sources of data.
What is changed in Grafana itself is changed here too, or the next run overwrites it.
"""

from collections.abc import Mapping

from scripts.dashboards import fleet, quality, sessions, system, vehicle
from scripts.dashboards.model import Dashboard

DASHBOARDS: Mapping[str, Dashboard] = {
    "fleet": fleet.DASHBOARD,
    "vehicle": vehicle.DASHBOARD,
    "sessions": sessions.DASHBOARD,
    "quality": quality.DASHBOARD,
    "system": system.DASHBOARD,
}
"""By the name of the file, without its extension."""
