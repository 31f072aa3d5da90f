"""GET /v1/analytics/series/...: measures of a device for a chart, with few points and all peaks.

The period is divided into columns of equal time. Of each column the first, last, least and greatest value are answered,
so a line through them has the same extent in every column as a line through all readings.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Query
from starlette.responses import Response

from api import models
from api.csv_format import cells, columns
from api.database import connection
from api.live import NEVER_SEEN, device_path, never_seen
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.period import AskedPeriod, CommaSeparated, Period
from api.routing import needs
from api.services import Services, WithServices
from api.streaming import csv_stream, pages_of
from bridge.contract import KINDS, Kind, Measure

router = APIRouter(prefix="/v1/analytics/series", tags=["analytics"])

Points = Annotated[int, Query(ge=1, le=5_000, description="Columns of time, at most.")]
_US = timedelta(microseconds=1)
_VALUES = (
    "count({0}) AS {0}_count, "
    "(array_agg({0} ORDER BY ts) FILTER (WHERE {0} IS NOT NULL))[1] AS {0}_first, "
    "(array_agg({0} ORDER BY ts DESC) FILTER (WHERE {0} IS NOT NULL))[1] AS {0}_last, "
    "min({0}) AS {0}_least, max({0}) AS {0}_most"
)


def series_sql(kind: Kind, measures: list[Measure], period: Period) -> str:
    """The columns that have readings, in order. $1 is the device, $2 and $3 the bounds, $4 a column's microseconds."""
    values = ", ".join(_VALUES.format(measure.column) for measure in measures)
    return (
        f"SELECT (tstzrange_subdiff(ts, $2) * 1e6)::int8 / $4::int8 AS n, {values} FROM {kind.history_table} "  # noqa: S608
        f"WHERE {kind.id_column} = $1 AND ts >= $2 AND ts < $3 AND {period.days_sql()} GROUP BY n ORDER BY n"
    )


def _names(kind: Kind) -> Any:
    """The measures of a kind, as the type of a parameter."""
    return StrEnum(f"{kind.name.capitalize()}Measure", {m.column.upper(): m.name for m in kind.measures})


def _add_route(kind: Kind) -> None:
    async def series(
        services: WithServices,
        form: AskedMediaType,
        period: AskedPeriod,
        device: device_path(kind),  # type: ignore[valid-type]
        measure: Annotated[
            list[_names(kind)],  # type: ignore[valid-type]
            CommaSeparated,
            Query(min_length=1, max_length=len(kind.measures), description="Repeated, or separated by commas."),
        ],
        points: Points = 600,
    ) -> Response:
        asked = [m for m in kind.measures if m.name in measure]
        found = await _series(services, kind, device, asked, period, points)
        if form == "text/csv":
            return await _csv(f"series-{kind.name}-{device}", found)
        return Response(found.model_dump_json(), headers={"Vary": "Accept"}, media_type=form)

    router.add_api_route(
        f"/{kind.plural}/{{{kind.id_field}}}",
        series,
        operation_id=f"get{kind.name.capitalize()}Series",
        openapi_extra=needs("read"),
        summary=f"Get measures of a {kind.name} for a chart",
        response_model=models.Series,
        responses=NEVER_SEEN | CSV_RESPONSES,
        description=f"First, last, least and greatest value of a {kind.name}'s measures in each column of time.",
    )


for _kind in KINDS:
    _add_route(_kind)


async def _series(
    services: Services, kind: Kind, device: str, measures: list[Measure], period: Period, points: int
) -> models.Series:
    width = -(-period.us(period.end) // points)
    async with connection(services.pool) as c:
        rows = await c.fetch(series_sql(kind, measures, period), device, period.start, period.end, width)
        seen = f"SELECT EXISTS (SELECT FROM {kind.live_table} WHERE {kind.id_column} = $1)"  # noqa: S608
        if not rows and not await c.fetchval(seen, device):
            raise never_seen(kind, device)
    return models.Series(
        start=period.start,
        end=period.end,
        series=[
            models.MeasureSeries(
                measure=measure.name,
                unit=measure.unit,
                columns=[_column(row, measure, period, width) for row in rows if row[f"{measure.column}_count"]],
            )
            for measure in measures
        ],
    )


async def _csv(name: str, found: models.Series) -> Response:
    """A row for each column of time of each measure, with the measure before its members."""
    model = models.SeriesColumn
    rows = [(one.measure, column) for one in found.series for column in one.columns]
    header = ["measure", *columns(model)]
    return await csv_stream(name, header, lambda row: [row[0], *cells(model, row[1])], pages_of(rows))


def _column(row: asyncpg.Record, measure: Measure, period: Period, width: int) -> models.SeriesColumn:
    start = period.start + row["n"] * width * _US
    values: dict[str, Any] = {
        name: row[f"{measure.column}_{name}"] for name in ("count", "first", "last", "least", "most")
    }
    return models.SeriesColumn(start=start, end=min(period.end, start + width * _US), **values)
