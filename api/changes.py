"""What has changed in the live tables since an earlier look, without an index, a column or a trigger for it.

Each row knows the transaction that wrote it (`xmin`). A reader remembers the oldest transaction that was in progress
when it looked: a row that became visible later was written by it or by a younger one. This is complete where a
comparison of times is not, because a transaction may commit after one that began later. While a long transaction is in
progress, rows are found again that the reader has seen. To compare the transactions that a snapshot lists would not be
complete, because it does not list subtransactions.

Numbers of transactions are 32 bits in a row and 64 in a snapshot; they are compared by their distance, as PostgreSQL
does.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from api.database import Connection
from api.energy.quality import LONGEST_SILENCE
from bridge.store.tables import Table

_AS_OF = """
SELECT now() AS at, pg_snapshot_xmin(pg_current_snapshot())::text::int8 AS oldest_xid,
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 AS server
"""

_HALF, _WHOLE = 1 << 31, 1 << 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_token = re.compile(r"(\d{1,18})-(\d{1,17})-(\d{1,19})").fullmatch


@dataclass(frozen=True, slots=True)
class AsOf:
    """The state of the database that a reader has seen."""

    server: int
    """Identifies the server and its start: a restart after a crash may use the number of a transaction again that had
    been rolled back, and another server counts on its own."""
    at: datetime
    """Time of the database."""
    oldest_xid: int
    """The oldest transaction in progress, 64 bits."""

    @classmethod
    async def read(cls, c: Connection) -> Self:
        """The state of this moment, or of this transaction."""
        row = await c.fetchrow(_AS_OF)
        assert row is not None
        return cls(row["server"], row["at"], row["oldest_xid"])

    @classmethod
    def parse(cls, token: str) -> Self | None:
        """The state of a token, or None for a text that is none."""
        match = _token(token)
        return cls(int(match[1]), _EPOCH + int(match[2]) * _US, int(match[3])) if match else None

    def token(self) -> str:
        """The state as text, opaque to clients."""
        return f"{self.server}-{(self.at - _EPOCH) // _US}-{self.oldest_xid}"

    def is_before(self, later: Self) -> bool:
        """Whether the changes from here to `later` can be found."""
        return self.server == later.server and 0 <= later.oldest_xid - self.oldest_xid < _HALF

    def may_lack(self, xmin: int) -> bool:
        """Whether a row with this `xmin` may have been written after this state."""
        return (xmin - self.oldest_xid) % _WHOLE < _HALF

    @property
    def xid(self) -> int:
        """`oldest_xid` as in a row."""
        return self.oldest_xid % _WHOLE


def changed_sql(row: str, xid: str) -> str:
    """Whether a row may have been written after a state with this `xid`.

    A row that was written more than 2,147,483,648 transactions ago has a negative age.
    """
    return f"age({row}.xmin) BETWEEN 0 AND age({xid}::xid)"


def silent_from_sql(row: str, device: str, default_interval_s: str) -> str:
    """The time from which a device is silent, unless another reading comes. `device` is its row in the register."""
    return f"{row}.ts + {_longest_silence_sql(device, default_interval_s)}"


def never_reported_silent_from_sql(device: str, default_interval_s: str) -> str:
    """The same of a declared device that never reported."""
    return f"{device}.created_at + {_longest_silence_sql(device, default_interval_s)}"


def _longest_silence_sql(device: str, default_interval_s: str) -> str:
    return f"{LONGEST_SILENCE} * coalesce({device}.interval_s, {default_interval_s}) * interval '1 s'"


def register_sql(table: Table, row: str, device: str) -> str:
    """Joins the register to a live table of which most rows are read."""
    key = table.device_column
    return f"LEFT JOIN device {device} ON {device}.kind = '{table.kind.name}' AND {device}.id = {row}.{key}"


def keyed_register_sql(table: Table, row: str, device: str) -> str:
    """The same where few rows are read: the register is looked up by its key for each. OFFSET 0 keeps it so."""
    key = f"kind = '{table.kind.name}' AND id = {row}.{table.device_column}"
    return f"LEFT JOIN LATERAL (SELECT interval_s FROM device WHERE {key} OFFSET 0) AS {device} ON true"  # noqa: S608
