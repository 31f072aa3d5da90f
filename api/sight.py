"""What a key sees: every device, or only those that it is limited to. Pure; `api.seen` asks the device register.

A limited key sees each device that one of its patterns names, and each device that the register declares at one of its
sites when the request is made. A device that moves to another site is seen by that site's keys from then on, with its
whole history.

How a route respects the limit is declared next to its scope (`routing.needs`). What a request names, in its path or its
query, is checked before the route is called (`layers.sight`). A route that answers a list takes `services.WithSight`,
and its statements have a condition or a FROM item from here.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from bridge.contract import KIND_OF, Kind

PATTERN = rf"^(?:(?:{'|'.join(KIND_OF)}):)?[A-Za-z0-9_-]{{1,64}}\*?$"
"""Of one that names devices: `EV_1`, a prefix `EV_*`, either of one kind only (`vehicle:EV_1`)."""
_device_pattern = re.compile(PATTERN[1:-1]).fullmatch
_BEYOND_LETTERS = "~"
"""Sorts behind every character of a device id, so the ids with a prefix are those from it to it and this."""


def is_device_pattern(text: str) -> bool:
    """Whether `text` names devices (`PATTERN`)."""
    return _device_pattern(text) is not None


@dataclass(frozen=True)
class Sight:
    """The limits of a key: patterns of devices and names of sites. It sees what either of them covers.

    Each of the two is None where the key has none; it sees every device if both are None.
    """

    devices: tuple[str, ...] | None = None
    sites: tuple[str, ...] | None = None

    @property
    def is_limited(self) -> bool:
        return self.devices is not None or self.sites is not None

    def names(self, kind: str, device: str) -> bool:
        """Whether the key sees the device wherever it is declared."""
        if not self.is_limited:
            return True
        ids, prefixes = self._names[kind]
        return device in ids or device.startswith(prefixes)

    def sees_site(self, site: str) -> bool:
        """Whether the key sees all that is declared at the site."""
        return not self.is_limited or site in (self.sites or ())

    def sees(self, kind: str, device: str, site: str | None) -> bool:
        """Whether the key sees a device that is declared at this site; None: at none."""
        return self.names(kind, device) or (site is not None and self.sees_site(site))

    @property
    def arguments(self) -> tuple[list[str], ...]:
        """The arguments of the statements: kinds, first and last ids of the devices, and sites. None if unlimited."""
        if not self.is_limited:
            return ()
        ranges = [
            (kind, name, name + beyond)
            for kind, (ids, prefixes) in self._names.items()
            for names, beyond in ((sorted(ids), ""), (prefixes, _BEYOND_LETTERS))
            for name in names
        ]
        kinds, least, most = map(list, zip(*ranges, strict=True)) if ranges else ([], [], [])
        return kinds, least, most, list(self.sites or ())

    @cached_property
    def _names(self) -> dict[str, tuple[frozenset[str], tuple[str, ...]]]:
        """Of each kind, the ids and the prefixes of the patterns. A body may have thousands of readings."""
        parted = [pattern.rpartition(":")[::2] for pattern in self.devices or ()]
        names = {kind: [name for own, name in parted if own in ("", kind)] for kind in KIND_OF}
        return {
            kind: (
                frozenset(name for name in own if not name.endswith("*")),
                tuple(name[:-1] for name in own if name.endswith("*")),
            )
            for kind, own in names.items()
        }

    def condition(self, kind: str, device: str, first: int) -> str:
        """A condition that holds for the devices that the key sees, where few rows are left to be tested.

        `kind` and `device` are SQL expressions whose columns are qualified; $first and the following parameters are
        the sight's `arguments`.
        """
        if not self.is_limited:
            return "TRUE"
        return (
            f"(EXISTS (SELECT FROM {_ranges_sql(first)} WHERE r.kind = {kind} "  # noqa: S608
            f"AND {device} BETWEEN r.least AND r.most) OR EXISTS (SELECT FROM device AS d "
            f"WHERE d.kind = {kind} AND d.id = {device} AND d.site = ANY(${first + 3}::text[])))"
        )

    def rows(self, ids: "Ids", first: int) -> str:
        """A FROM item, the rows of a table that the key sees, found by keys: its cost depends on what the key sees.

        $first and the following parameters are the sight's `arguments`.
        """
        if not self.is_limited:
            return ids.table
        # OFFSET 0: the planner does not know how few they are, and would walk through the whole index beside them.
        return (
            f"({ids.sql(first)}) AS seen (seen_id) CROSS JOIN LATERAL (SELECT * FROM {ids.table} "  # noqa: S608
            f"WHERE {ids.column} = seen.seen_id AND {ids.where} OFFSET 0) AS {ids.table}"
        )


@dataclass(frozen=True, slots=True)
class Ids:
    """The column of a table that holds ids of devices of one kind, with an index that begins with it."""

    kind: Kind
    table: str
    column: str
    bound: str = ""
    """What is compared with the ids, as in `> $1`. Fewer are read if only those after a cursor are needed."""
    where: str = "TRUE"
    """Condition on the table, with plain names of its columns."""
    limit: str = "ALL"
    """How many are needed at most; only where all that are found are used."""

    def sql(self, first: int) -> str:
        """The ids of the table that a limited key sees; each of its devices and sites is looked up by a key."""
        bound = f"AND {{}} {self.bound}" if self.bound else ""
        return f"""
SELECT own.id FROM {_ranges_sql(first)} CROSS JOIN LATERAL (
    SELECT DISTINCT {self.column} AS id FROM {self.table}
    WHERE {self.column} BETWEEN r.least AND r.most {bound.format(self.column)} AND {self.where}
    ORDER BY {self.column} LIMIT {self.limit}) AS own
WHERE r.kind = '{self.kind.name}'
UNION
SELECT own.id FROM unnest(${first + 3}::text[]) AS s (site) CROSS JOIN LATERAL (
    SELECT d.id FROM device AS d
    WHERE d.kind = '{self.kind.name}' AND d.site = s.site {bound.format("d.id")}
      AND EXISTS (SELECT FROM {self.table} WHERE {self.column} = d.id AND {self.where})
    ORDER BY d.id LIMIT {self.limit}) AS own
"""  # noqa: S608


def _ranges_sql(first: int) -> str:
    return f"unnest(${first}::text[], ${first + 1}::text[], ${first + 2}::text[]) AS r (kind, least, most)"
