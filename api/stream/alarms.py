"""Alarms that were raised, cleared or acknowledged between two looks."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.alarm_models import Alarm
from api.changes import AsOf, changed_sql
from api.database import Connection
from api.stream.filters import Filter
from bridge.contract import KIND_OF

_COLUMNS = ", ".join(Alarm.model_fields)
# Cleared alarms are never forgotten, so only those of the last minute are looked at; both parts have an index.
_CHANGED = " UNION ALL ".join(
    f"SELECT {_COLUMNS}, xmin AS written_by FROM alarm WHERE {state} AND {changed_sql('alarm', '$1')}"  # noqa: S608
    for state in ("cleared_at IS NULL", "cleared_at > now() - interval '1 min'")
)


@dataclass(frozen=True, slots=True)
class ChangedAlarm:
    """An alarm as it is now."""

    text: str
    """As JSON."""
    kind: str | None
    device: str | None
    site: str | None

    def concerns(self, watched: Filter) -> bool:
        """Whether a viewer is told: of the watched devices, or of the whole fleet if it watches that."""
        if self.kind is None or self.device is None:
            return watched.is_everything
        return watched.has(KIND_OF[self.kind], self.device, self.site)


class AlarmLooker:
    """Finds the alarms that have changed. Not for concurrent use."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    async def look(self, c: Connection, since: AsOf | None) -> Sequence[ChangedAlarm]:
        """Those that have changed after a state; none for the first look, after which a client lists them."""
        if since is None:
            self._known.clear()
            return []
        rows = await c.fetch(_CHANGED, since.xid)
        # While a long transaction is in progress, rows are found again.
        new = [row for row in rows if self._known.get(row["id"]) != row["written_by"]]
        self._known = {row["id"]: row["written_by"] for row in rows}
        return [
            ChangedAlarm(Alarm.model_validate(dict(row)).model_dump_json(), row["kind"], row["device"], row["site"])
            for row in sorted(new, key=lambda row: int(row["id"]))
        ]
