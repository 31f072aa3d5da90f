"""GET /v1/analytics/series/...: measures of a device for a chart, with few points and all peaks.

The period is divided into columns of equal time. Of each column the first, last, least and greatest value are answered,
so a line through them has the same extent in every column as a line through all readings.
"""

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import models
from api.as_of import WithReading
from api.csv_format import cells, columns
from api.database import connection
from api.live import NEVER_SEEN, device_path
from api.measured import detached_days
from api.negotiation import CSV_RESPONSES, AskedMediaType
from api.period import AnyPeriod, CommaSeparated, Period, checked
from api.replicas.reading import Reading
from api.routing import named, needs
from api.series_columns import Columns, Values, columns_of
from api.series_reader import Device, read_series
from api.services import Services, WithFigures
from api.streaming import csv_stream, pages_of
from bridge.contract import KINDS, Kind, Measure

router = APIRouter(prefix="/v1/analytics/series", tags=["analytics"])

MOST_DAYS = 3_660
"""The longest period of a request."""
Points = Annotated[int, Query(ge=1, le=5_000, description="Columns of time, at most.")]


def _names(kind: Kind) -> Any:
    """The measures of a kind, as the type of a parameter."""
    return StrEnum(f"{kind.name.capitalize()}Measure", {m.column.upper(): m.name for m in kind.measures})


def _add_route(kind: Kind) -> None:
    async def series(
        services: WithFigures,
        reading: WithReading,
        form: AskedMediaType,
        period: AnyPeriod,
        device: device_path(kind),  # type: ignore[valid-type]
        measure: Annotated[
            list[_names(kind)],  # type: ignore[valid-type]
            CommaSeparated,
            Query(min_length=1, max_length=len(kind.measures), description="Repeated, or separated by commas."),
        ],
        points: Points = 600,
    ) -> Response:
        asked = [m for m in kind.measures if m.name in measure]
        found = await _series(services, reading, kind, device, asked, period, points)
        if form == "text/csv":
            return await _csv(f"series-{kind.name}-{device}", found)
        return Response(found.model_dump_json(), headers={"Vary": "Accept"}, media_type=form)

    router.add_api_route(
        f"/{kind.plural}/{{{kind.id_field}}}",
        series,
        operation_id=f"get{kind.name.capitalize()}Series",
        openapi_extra=needs("read", named(**{kind.id_field: kind})),
        summary=f"Get measures of a {kind.name} for a chart",
        response_model=models.Series,
        responses=NEVER_SEEN | CSV_RESPONSES,
        description=f"First, last, least and greatest value of a {kind.name}'s measures in each column of time.",
    )


for _kind in KINDS:
    _add_route(_kind)


async def _series(
    services: Services,
    reading: Reading,
    kind: Kind,
    device: str,
    measures: list[Measure],
    period: Period,
    points: int,
) -> models.Series:
    columns = columns_of(checked(period, MOST_DAYS), points)
    most_days = services.settings.query_range_limit_days
    async with connection(reading) as c:
        found = await read_series(c, Device(kind, device, measures), columns, most_days)
        days = await detached_days(c, [kind], period)
    return models.Series(
        start=period.start,
        end=period.end,
        detached_days=days,
        series=[
            models.MeasureSeries(
                measure=measure.name,
                unit=measure.unit,
                columns=[_column(columns, n, values) for n, values in sorted(found[measure.name].items())],
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


def _column(columns: Columns, n: int, values: Values) -> models.SeriesColumn:
    start, end = columns.bounds(n)
    return models.SeriesColumn(
        start=start,
        end=end,
        count=values.readings,
        first=values.first,
        last=values.last,
        least=values.least,
        most=values.most,
    )
