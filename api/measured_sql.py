"""The questions about devices' readings, and the statements that answer them for several devices at once.

Each statement has the devices as arrays; a row names its device by the number `n` that it was given. Days of the
history are constants in the text, which prune partitions when the statement is planned.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from api.energy.curve import LOOK_BACK_US
from api.energy.interval import DAY_US, QUARTER_US
from api.energy.quarter import Quarter
from api.energy.spans import Span, union
from api.period import EARLIEST, LATEST, Period
from bridge.contract import Kind, Measure

US = timedelta(microseconds=1)
_NEIGHBOURS = timedelta(days=31)
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_RANGES = 12
_DETACHED = """
SELECT relname::text FROM unnest({first}::name[], {last}::name[]) AS days(first, last)
JOIN pg_class ON relname BETWEEN first AND last AND relkind = 'r' AND NOT relispartition
  AND relnamespace = current_schema()::regnamespace
"""
_ABOUT = """
SELECT asked.n, l.{device} IS NOT NULL, ARRAY[{sent}]::boolean[], d.interval_s, d.rated_kw,
       (tstzrange_subdiff(l.ts, $1) * 1e6)::int8, (tstzrange_subdiff(m.closed_until, $1) * 1e6)::int8, {detached}
FROM unnest({n}::int4[], {ids}::text[]) AS asked(n, id)
LEFT JOIN {live} l ON l.{device} = asked.id LEFT JOIN device d ON d.kind = '{kind}' AND d.id = asked.id
LEFT JOIN (SELECT kind, greatest(closed_until, '0001-01-02 00:00+00') AS closed_until FROM quarter_mark) m
    ON m.kind = '{kind}'
"""
_SUMMARY = (
    "readings, first_us, last_us, coalesce(widest_us, 0) AS widest, is_even, interval_first, "
    "coalesce(interval_in, 0) AS interval_in, coalesce(interval_out, 0) AS interval_out, "
    "coalesce(steps_in, 0) AS steps_in, coalesce(steps_out, 0) AS steps_out, register_in_first, register_in_last, "
    "register_out_first, register_out_last, coalesce(rises_in, 0) AS rises_in, coalesce(rises_out, 0) AS rises_out, "
    "coalesce(steepest_kw, 0) AS steepest_kw"
)
_OF_QUARTER = ", ".join({"first": "start + first_us", "last": "start + last_us"}.get(f, f) for f in Quarter._fields)
"""The columns of a `Quarter`."""
_NO_SUMMARY = ", ".join(["NULL"] * (len(Quarter._fields) - 2))


class Question(NamedTuple):
    """What is asked of a device."""

    kind: Kind
    period: Period
    gauge: Measure | None = None
    """A gauge whose mean over the period is asked for."""
    gauges: tuple[Measure, ...] = ()
    """Further gauges of the same readings; no neighbours are looked for on their account."""
    cuts: Sequence[int] = ()
    """Where figures are divided, besides at the period's edges: microseconds since its start."""
    is_compared: bool = False
    """Whether readings are needed where energy flowed in a part of a quarter hour only, also of the other devices."""
    is_whole: bool = False
    """Whether figures are about the whole period: quarter hours without a cut between them may be taken together."""
    are_flows_read: bool = False
    """Whether the readings near every flow that matters are read in the end (`Readers.refine`): the other quarter hours
    may be taken together as well."""

    @property
    def span_us(self) -> int:
        return self.period.us(self.period.end)

    @property
    def offset(self) -> int:
        return offset_of(self.period)

    @property
    def measures(self) -> list[Measure]:
        """All that is asked for."""
        asked = (*measures_of_energy(self.kind), self.gauge, *self.gauges)
        return [measure for measure in asked if measure is not None]


class Wanted(NamedTuple):
    """The readings of one device in a span of time; microseconds since the period's start."""

    n: int
    device: str
    span: Span


class Neighbour(NamedTuple):
    """The reading of one device that is nearest to the period and has a measure."""

    n: int
    device: str
    column: str
    is_before: bool
    """Before the period; otherwise after it."""


class Statement:
    """The text and the arguments of a statement that is made of parts."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = list(arguments)
        self.parts: list[str] = []

    def argument(self, value: Any) -> str:
        """The placeholder of one more argument."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    @property
    def text(self) -> str:
        return " UNION ALL ".join(self.parts)


def measures_of_energy(kind: Kind) -> tuple[Measure | None, Measure | None, Measure | None]:
    """The interval, and the registers of energy in and out, as far as devices of the kind have them."""
    return kind.interval, kind.register_in, kind.register_out


def with_neighbours(period: Period) -> Period:
    """The period and the time around it in which neighbours are looked for."""
    return _around(period, _NEIGHBOURS)


def _around(period: Period, time: timedelta) -> Period:
    return Period(period.start - min(time, period.start - EARLIEST), period.end + min(time, LATEST - period.end))


def offset_of(period: Period, length: int = QUARTER_US) -> int:
    """The start of the quarter hour, or of the hour, in which a period starts."""
    return -((period.start - _EPOCH) // US % length)


def registers_since(period: Period) -> int:
    """From when on readings are needed that show the highest value of a register at the begin of a period.

    The begin of a quarter hour, about `LOOK_BACK_US` before the period.
    """
    return max(offset_of(period) - LOOK_BACK_US, period.us(EARLIEST))


def observed_days(period: Period) -> Span:
    """The UTC days whose readings show the intervals of the readings in a period and of the first one after it."""
    offset = offset_of(period, DAY_US)
    last = period.us(period.end)
    return Span(max(offset, period.us(EARLIEST)), min(last - (last - offset) % DAY_US + DAY_US, period.us(LATEST)))


def detached_sql(kinds: Iterable[Kind], period: Period, statement: Statement) -> str:
    """The names of partitions of a period that were detached from the history."""
    first, last = (f"{instant.astimezone(UTC):%Y%m%d}" for instant in (period.start, period.end - US))
    tables = [kind.history_table for kind in kinds]
    names = ([f"{table}_{day}" for table in tables] for day in (first, last))
    return _DETACHED.format(**dict(zip(("first", "last"), map(statement.argument, names), strict=True)))


def detached_days_of(names: Iterable[str]) -> list[date]:
    """The days of these partitions, in order."""
    return sorted({datetime.strptime(name[-8:], "%Y%m%d").date() for name in names})  # noqa: DTZ007  # a date


def about_sql(devices: Sequence[tuple[int, str, Question]]) -> Statement:
    """What is known of devices.

    Rows: n, whether it has ever reported, for each of its question's measures whether it has ever sent it, its declared
    interval and rated power, its newest reading, until when its kind is summarized, and the detached partitions of
    the period and of a day before and after it.
    """
    period = devices[0][2].period
    statement = Statement(period.start)
    kinds = _kinds(question for _, _, question in devices)
    detached = f"ARRAY({detached_sql(kinds, _around(period, _DAY), statement)})"
    for kind in kinds:
        own = [(n, device) for n, device, question in devices if question.kind is kind]
        measures = next(question.measures for _, _, question in devices if question.kind is kind)
        n, ids = (statement.argument(list(values)) for values in zip(*own, strict=True))
        sent = ", ".join(f"l.{measure.column} IS NOT NULL" for measure in measures)
        names = {"device": kind.id_column, "live": kind.live_table, "kind": kind.name}
        statement.parts.append(_ABOUT.format(n=n, ids=ids, sent=sent, detached=detached, **names))
    return statement


def summaries_sql(wanted: Sequence[Wanted], questions: Sequence[Question]) -> Statement:
    """The summaries and the marks of quarter hours: rows with the columns of a `Quarter`; a mark has its start
    and n only.

    Both at once: the keeper deletes a mark and replaces the summary in one transaction.
    """
    period = questions[0].period
    statement = Statement(period.start)
    start = "(tstzrange_subdiff(bucket, $1) * 1e6)::int8"
    months = Period(period.start - min(_DAY, period.start - EARLIEST), period.end).days_sql("bucket")
    parts = ("readings", "first", "last", "area")
    for kind in _kinds(questions[one.n] for one in wanted):
        own = [one for one in wanted if questions[one.n].kind is kind]
        gauge = next(questions[one.n].gauge for one in own)
        columns = ["NULL::int4", "NULL::float8", "NULL::float8", "NULL::float8"]
        if gauge is not None:
            columns = [f"{gauge.column}_{part}" for part in parts]
        named = ", ".join(f"{column} AS gauge_{part}" for column, part in zip(columns, parts, strict=True))
        of_device = f"{kind.id_column} = s.device AND bucket >= since AND bucket < until"
        spans = _spans(own, period, statement)
        statement.parts += [
            f"SELECT {_OF_QUARTER} FROM {spans} CROSS JOIN LATERAL (SELECT {start} AS start, {_SUMMARY}, {named} "  # noqa: S608
            f"FROM {kind.quarter_table} WHERE {of_device} AND {months} OFFSET 0) AS r",
            f"SELECT r.*, {_NO_SUMMARY}, s.n FROM {spans} CROSS JOIN LATERAL (SELECT {start} "  # noqa: S608
            f"FROM {kind.dirty_table} WHERE {of_device} OFFSET 0) AS r",
        ]
    return statement


def readings_sql(
    wanted: Sequence[Wanted], near: Sequence[Neighbour], questions: Sequence[Question], sent: Sequence[set[str]]
) -> Statement:
    """Readings of spans of time and neighbours of the period within a day, in any order.

    Rows: the time, interval, registers, the gauges of the questions, whether it is a neighbour, and n. `sent` has the
    columns that each device has ever sent; an unused column is not read, so that a key may cover the query.
    """
    period = questions[0].period
    statement = Statement(period.start)
    width = max(len(question.gauges) for question in questions)
    asked = {one.n for one in wanted} | {one.n for one in near}
    for kind in _kinds(questions[n] for n in asked):
        columns = set[str]().union(*(sent[n] for n in asked if questions[n].kind is kind))
        select = _select(next(questions[n] for n in asked if questions[n].kind is kind), columns, width)
        if own := [one for one in wanted if questions[one.n].kind is kind]:
            days = days_of_spans_sql(
                (period.start + one.span.start * US, period.start + one.span.end * US) for one in own
            )
            # OFFSET 0 keeps the planner from joining the spans with all readings of the days.
            statement.parts.append(
                f"SELECT r.*, false, s.n FROM {_spans(own, period, statement)} CROSS JOIN LATERAL "  # noqa: S608
                f"({select} {kind.id_column} = s.device AND ts >= since AND ts < until AND ({days}) OFFSET 0) AS r"
            )
        beside = [one for one in near if questions[one.n].kind is kind]
        _add_neighbours(statement, kind, beside, period, _around(period, _DAY), select)
    return statement


def far_neighbours_sql(far: Sequence[Neighbour], questions: Sequence[Question], sent: Sequence[set[str]]) -> Statement:
    """The neighbours within 31 days; rows as of `readings_sql`."""
    period = questions[0].period
    statement = Statement(period.start)
    width = max(len(question.gauges) for question in questions)
    for kind in _kinds(questions[one.n] for one in far):
        own = [one for one in far if questions[one.n].kind is kind]
        columns = set[str]().union(*(sent[one.n] for one in own))
        select = _select(questions[own[0].n], columns, width)
        _add_neighbours(statement, kind, own, period, with_neighbours(period), select)
    return statement


def _add_neighbours(
    statement: Statement, kind: Kind, near: Sequence[Neighbour], period: Period, around: Period, select: str
) -> None:
    for column, is_before in sorted({(one.column, one.is_before) for one in near}):
        own = [(one.n, one.device) for one in near if (one.column, one.is_before) == (column, is_before)]
        n, devices = (statement.argument(list(values)) for values in zip(*own, strict=True))
        if is_before:
            side, days, order = "ts < $1", Period(around.start, period.start), "DESC"
        else:
            side, days, order = f"ts >= {statement.argument(period.end)}", Period(period.end, around.end), "ASC"
        statement.parts.append(
            f"SELECT r.*, true, s.n FROM unnest({n}::int4[], {devices}::text[]) AS s(n, device) CROSS JOIN LATERAL "  # noqa: S608
            f"({select} {kind.id_column} = s.device AND {side} AND {days.days_sql()} AND {column} IS NOT NULL "
            f"ORDER BY {kind.id_column} {order}, ts {order} LIMIT 1) AS r"
        )


def _kinds(questions: Iterable[Question]) -> list[Kind]:
    """Each kind once."""
    return list(dict.fromkeys(question.kind for question in questions))


def _spans(wanted: Sequence[Wanted], period: Period, statement: Statement) -> str:
    """The devices with their spans of time as a relation."""
    n, devices, spans = zip(*wanted, strict=True)
    since, until = ([period.start + at * US for at in edges] for edges in zip(*spans, strict=True))
    arrays = (statement.argument(list(values)) for values in (n, devices, since, until))
    types = ("int4", "text", "timestamptz", "timestamptz")
    typed = ", ".join(f"{array}::{type_}[]" for array, type_ in zip(arrays, types, strict=True))
    return f"unnest({typed}) AS s(n, device, since, until)"


def _select(question: Question, sent: set[str], width: int) -> str:
    gauges = [*question.gauges, *[None] * (width - len(question.gauges))]
    columns = [_column(measure, sent) for measure in (*measures_of_energy(question.kind), question.gauge, *gauges)]
    columns[0] = columns[0] if columns[0] != _NOTHING else "NULL::int8"
    return (
        f"SELECT (tstzrange_subdiff(ts, $1) * 1e6)::int8 AS at, {', '.join(columns)} "  # noqa: S608
        f"FROM {question.kind.history_table} WHERE "
    )


_NOTHING = "NULL::float8"


def _column(measure: Measure | None, sent: set[str]) -> str:
    if measure is None or measure.column not in sent:
        return _NOTHING
    return f"({measure.column} * 1e12)::int8" if measure.sort == "interval" else f"{measure.column}::float8"


def days_of_spans_sql(spans: Iterable[tuple[datetime, datetime]]) -> str:
    """A condition on `ts` for the UTC days of some spans; if they are many, for all from the first to the last."""
    days = union(
        (first.astimezone(UTC).toordinal(), (beyond - US).astimezone(UTC).toordinal() + 1) for first, beyond in spans
    )
    if len(days) > _MOST_RANGES:
        days = [Span(days[0].start, days[-1].end)]
    conditions = [
        f"ts >= '{date.fromordinal(first)} 00:00+00' AND ts < '{date.fromordinal(beyond)} 00:00+00'"
        for first, beyond in days
    ]
    return " OR ".join(conditions) or "false"
