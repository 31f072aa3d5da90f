"""What a dashboard consists of, and its JSON as Grafana imports and provisions it.

The sources of data are variables of each dashboard, so that it can be imported into any Grafana; those of
local/monitoring/grafana are their first choice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Json = dict[str, Any]
Type = Literal["stat", "table", "timeseries", "barchart"]

POSTGRES: Json = {"type": "grafana-postgresql-datasource", "uid": "${database}"}
PROMETHEUS: Json = {"type": "prometheus", "uid": "${prometheus}"}
_COLUMNS = 24
_SCHEMA = 39
"""Version of the dashboard's schema, of Grafana 11; later versions migrate it when they load it."""


class Query(NamedTuple):
    """What a panel asks: SQL, or PromQL with a legend."""

    source: Literal["sql", "promql"]
    text: str
    legend: str = ""
    is_now: bool = False
    """PromQL for the end of the period only."""


class Panel(NamedTuple):
    """A panel; it is `width` of 24 columns wide."""

    type: Type
    title: str
    queries: Sequence[Query]
    unit: str = "none"
    width: int = 12
    height: int = 8
    description: str = ""
    units: Mapping[str, str] = {}
    """Units of columns that have another one than the panel."""
    look: Literal["line", "bars", "stacked"] = "line"
    links: Mapping[str, str] = {}
    """Columns whose values are links, to a URL in which ${__value.raw} is the value."""


class Row(NamedTuple):
    """Panels below a heading; the queries of a collapsed row are sent when it is opened."""

    title: str
    panels: Sequence[Panel]
    is_collapsed: bool = False


class Variable(NamedTuple):
    """A choice of the viewer: the result of SQL, or a list of values separated by commas."""

    name: str
    label: str
    query: str
    is_multi: bool = False
    has_all: bool = False
    is_list: bool = False


class Dashboard(NamedTuple):
    """A dashboard; its file is named after the part of its uid after `fleet-`."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    period: str = "now-6h"
    refresh: str = "30s"

    def json(self) -> str:
        """The text of its file."""
        return json.dumps(_dashboard(self), indent=2, ensure_ascii=False) + "\n"


def sql(text: str) -> Query:
    """A query of the views; columns named `time` are the time axis."""
    return Query("sql", "\n".join(line.rstrip() for line in text.strip().splitlines()))


def promql(text: str, legend: str = "", *, is_now: bool = False) -> Query:
    """A query of the metrics."""
    return Query("promql", " ".join(text.split()), legend, is_now)


def _dashboard(of: Dashboard) -> Json:
    return {
        "uid": of.uid,
        "title": of.title,
        "description": of.description,
        "tags": ["fleet"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": _SCHEMA,
        "refresh": of.refresh,
        "time": {"from": of.period, "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "Fleet",
                "tags": ["fleet"],
                "asDropdown": True,
                "keepTime": True,
                "includeVars": False,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": [*_sources(), *map(_variable, of.variables)]},
        "panels": list(_placed(of.rows)),
    }


def _sources() -> Iterator[Json]:
    for name, label, type_, uid in (
        ("database", "Database", POSTGRES["type"], "fleet-database"),
        ("prometheus", "Prometheus", PROMETHEUS["type"], "fleet-prometheus"),
    ):
        current = {"selected": False, "text": uid, "value": uid}
        yield {"type": "datasource", "name": name, "label": label, "query": type_, "current": current, "hide": 0}


def _variable(of: Variable) -> Json:
    own: Json = {"name": of.name, "label": of.label, "hide": 0, "multi": of.is_multi, "includeAll": of.has_all}
    if of.is_list:
        values = of.query.split(",")
        options = [{"selected": value == values[0], "text": value, "value": value} for value in values]
        return own | {"type": "custom", "query": of.query, "options": options, "current": options[0]}
    if of.has_all:
        own["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return own | {"type": "query", "datasource": POSTGRES, "query": of.query, "refresh": 2, "sort": 0}


def _placed(rows: Sequence[Row]) -> Iterator[Json]:
    """The rows and panels with their ids and positions, from left to right and from top to bottom."""
    number, y = 0, 0
    for row in rows:
        number += 1
        heading = {"type": "row", "id": number, "title": row.title, "collapsed": row.is_collapsed}
        heading["gridPos"] = {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
        placed, y = _arranged(row.panels, number, y + 1)
        number += len(placed)
        yield heading | {"panels": placed if row.is_collapsed else []}
        if not row.is_collapsed:
            yield from placed


def _arranged(panels: Sequence[Panel], number: int, y: int) -> tuple[list[Json], int]:
    """The panels with the ids after `number`, and the line below them."""
    placed, x, height = [], 0, 0
    for n, panel in enumerate(panels, number + 1):
        if x + panel.width > _COLUMNS:
            x, y, height = 0, y + height, 0
        place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
        placed.append(_panel(panel, n) | {"gridPos": place})
        x, height = x + panel.width, max(height, panel.height)
    return placed, y + height


def _panel(of: Panel, number: int) -> Json:
    sources = {query.source for query in of.queries}
    assert len(sources) == 1, f"{of.title}: a panel asks one source"
    return {
        "id": number,
        "type": of.type,
        "title": of.title,
        "description": of.description,
        "datasource": POSTGRES if sources == {"sql"} else PROMETHEUS,
        "targets": [_target(of, query, chr(ord("A") + n)) for n, query in enumerate(of.queries)],
        "fieldConfig": {
            "defaults": {"unit": of.unit, "custom": _custom(of)},
            "overrides": [*_overrides(of)],
        },
        "options": _options(of.type),
    }


def _target(of: Panel, query: Query, ref: str) -> Json:
    if query.source == "sql":
        format_ = "time_series" if of.type == "timeseries" else "table"
        return {
            "refId": ref,
            "datasource": POSTGRES,
            "rawSql": query.text,
            "rawQuery": True,
            "editorMode": "code",
            "format": format_,
        }
    return {
        "refId": ref,
        "datasource": PROMETHEUS,
        "expr": query.text,
        "legendFormat": query.legend or "__auto",
        "instant": query.is_now,
        "range": not query.is_now,
        "format": "table" if of.type == "table" else "time_series",
    }


def _custom(of: Panel) -> Json:
    if of.type != "timeseries":
        return {}
    bars = of.look != "line"
    return {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 10,
        "lineWidth": 1,
        # A gap in the readings stays one.
        "spanNulls": False,
        "showPoints": "never" if bars else "auto",
        "stacking": {"mode": "normal" if of.look == "stacked" else "none", "group": "A"},
    }


def _overrides(of: Panel) -> Iterator[Json]:
    for column, unit in of.units.items():
        yield {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "unit", "value": unit}]}
    for column, url in of.links.items():
        link = {"title": column, "url": url}
        yield {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "links", "value": [link]}]}


def _options(type_: Type) -> Json:
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    tooltip = {"mode": "multi", "sort": "none"}
    if type_ == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "/.*/", "values": False}
        return {
            "reduceOptions": reduce,
            "graphMode": "none",
            "colorMode": "value",
            "justifyMode": "auto",
            "textMode": "auto",
            "orientation": "auto",
        }
    if type_ == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    if type_ == "barchart":
        return {"legend": legend, "tooltip": tooltip, "orientation": "auto", "showValue": "auto", "stacking": "none"}
    return {"legend": legend, "tooltip": tooltip}
