"""The dashboards as Grafana sends their queries: with its variables and macros replaced."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

MONITORING = Path(__file__).resolve().parents[1] / "local" / "monitoring"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
}
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_MACRO = re.compile(r"\$__(\w+)\(([^)]*)\)")


class Target(NamedTuple):
    """A query of a panel."""

    dashboard: str
    panel: dict[str, Any]
    query: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel['title']} {self.query['refId']}"

    @property
    def text(self) -> str:
        """SQL or PromQL."""
        text: str = self.query.get("rawSql") or self.query["expr"]
        return text


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, those of collapsed rows too, and the rows."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def targets(kind: str) -> list[Target]:
    """All queries of one kind, `rawSql` or `expr`."""
    return [
        Target(name, panel, query)
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for query in panel.get("targets", ())
        if kind in query
    ]


def expanded(sql: str, since: datetime, until: datetime, values: Mapping[str, Sequence[str]]) -> str:
    """SQL as the plug-in for PostgreSQL sends it.

    Raises `KeyError` for a variable without values and `ValueError` for a macro that the plug-in does not have.
    """
    sql = re.sub(r"\$\{(\w+)(?::(\w+))?\}", lambda m: _interpolated(values[m[1]], m[2]), sql)
    sql = re.sub(r"\$__interval\b", "30s", sql)
    sql = _MACRO.sub(lambda m: _macro(m[1], [a.strip() for a in m[2].split(",")], since, until), sql)
    if "$" in sql:
        raise ValueError(f"not replaced: {sql}")
    return sql


def _interpolated(values: Sequence[str], form: str | None) -> str:
    if form is None:
        (value,) = values
        return value
    if form != "sqlstring":
        raise ValueError(f"the format {form}")
    return ",".join("'" + value.replace("'", "''") + "'" for value in values)


def _macro(name: str, arguments: Sequence[str], since: datetime, until: datetime) -> str:
    low, high = (f"'{time:%Y-%m-%dT%H:%M:%S}Z'" for time in (since, until))
    if name in ("timeFrom", "timeTo"):
        return low if name == "timeFrom" else high
    if name == "timeFilter":
        return f"{arguments[0]} BETWEEN {low} AND {high}"
    if name in ("timeGroup", "timeGroupAlias"):
        column, width = arguments
        seconds = int(width[:-1]) * _UNITS_S[width[-1]]
        group = f"floor(extract(epoch from {column})/{seconds})*{seconds}"
        return f'{group} AS "time"' if name == "timeGroupAlias" else group
    raise ValueError(f"the macro {name}")


def promql(text: str) -> str:
    """PromQL with the interval of rates that Grafana would use for the shipped scrape interval."""
    return text.replace("$__rate_interval", "1m")
