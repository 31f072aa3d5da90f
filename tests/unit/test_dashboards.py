"""The dashboards are what the generator writes, and what Grafana's own types know."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts import dashboards
from tests.grafana import DASHBOARDS, MONITORING, panels

UNITS = {value for value in vars(units).values() if isinstance(value, str)}
SOURCES = (
    {"type": "grafana-postgresql-datasource", "uid": "${database}"},
    {"type": "prometheus", "uid": "${prometheus}"},
)


def lost(given: Any, back: Any, path: str = "") -> Iterator[str]:
    """What is not in Grafana's types, or has another type there."""
    if isinstance(given, dict) and isinstance(back, dict):
        for key, value in given.items():
            yield from lost(value, back[key], f"{path}.{key}") if key in back else [f"{path}.{key}"]
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for n, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from lost(one, other, f"{path}[{n}]")
    elif given != back:
        yield path


def round_trip(dashboard: dict[str, Any]) -> Any:
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_file_is_the_one_that_is_generated(name: str) -> None:
    path = MONITORING / "grafana" / "dashboards" / f"{name}.json"
    assert path.read_text() == dashboards.DASHBOARDS[name].json(), "run: python -m scripts.dashboards"


def test_every_file_is_generated() -> None:
    assert DASHBOARDS.keys() == dashboards.DASHBOARDS.keys()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafana_knows_every_field(name: str) -> None:
    assert list(lost(DASHBOARDS[name], round_trip(DASHBOARDS[name]))) == []


def test_unknown_field_would_be_found() -> None:
    dashboard = json.loads(json.dumps(DASHBOARDS["fleet"]))
    chart = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
    chart["options"]["legend"]["position"] = "below"
    (path,) = lost(dashboard, round_trip(dashboard))
    assert path.endswith(".options.legend.position")


def test_uids_are_unique_and_links_lead_to_one_of_them() -> None:
    uids = [dashboard["uid"] for dashboard in DASHBOARDS.values()]
    assert len({*uids}) == len(uids)
    assert all(dashboard["uid"] == f"fleet-{name}" for name, dashboard in DASHBOARDS.items())
    text = json.dumps(DASHBOARDS)
    assert {part.split("?")[0] for part in text.split('"/d/')[1:]} == {"fleet-vehicle"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    own = list(panels(DASHBOARDS[name]))
    assert sorted(panel["id"] for panel in own) == list(range(1, len(own) + 1))
    places: dict[tuple[int, int], int] = {}
    for panel in own:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert places.setdefault((x, y), panel["id"]) == panel["id"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_name_their_source_by_variable_and_have_a_unit_of_grafana(name: str) -> None:
    variables = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}
    assert {"database", "prometheus"} <= variables
    for panel in panels(DASHBOARDS[name]):
        if panel["type"] == "row":
            continue
        assert panel["datasource"] in SOURCES
        assert panel["targets"]
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        config = panel["fieldConfig"]
        set_units = [p["value"] for o in config["overrides"] for p in o["properties"] if p["id"] == "unit"]
        assert {config["defaults"]["unit"], *set_units} <= UNITS


@pytest.mark.parametrize("name", DASHBOARDS)
def test_titles_are_unique(name: str) -> None:
    titles = [panel["title"] for panel in panels(DASHBOARDS[name])]
    assert len({*titles}) == len(titles)
