"""`python -m scripts.dashboards`, in a checkout of the repository."""

from pathlib import Path

from scripts.dashboards import DASHBOARDS

DIRECTORY = Path(__file__).resolve().parents[2] / "local" / "monitoring" / "grafana" / "dashboards"

for name, dashboard in DASHBOARDS.items():
    (DIRECTORY / f"{name}.json").write_text(dashboard.json())
