"""What `verify` found: counts, and a few examples of each thing that is wrong."""

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

FAULTS = {
    "missing after PUBACK": "the broker took it, and it is not in the database",
    "missing after receipt": "a receipt was given, and it is not in the database",
    "missing after HTTP answer": "201 (or 207, 422) was answered, and it is not in the database",
    "duplicated": "in the history more than once",
    "invented": "in the history, never sent",
    "different": "in the history with other values than were sent",
    "live differs": "the live row is not the newest of the history with the last known values",
    "reject missing": "acknowledged, should be in the rejects",
    "reject duplicated": "in the rejects more than once",
    "reject unexpected": "in the rejects, but no such thing was sent, or not for this reason",
    "warnings differ": "a receipt or an answer has other warnings than it should",
    "energy differs": "a device's total of interval energies is not the simulated truth",
    "register differs": "a register's values do not prove the energy of the simulated truth",
    "efficiency differs": "a vehicle's DC over AC is not the simulated truth",
}
"""Everything that may be wrong; each must be 0."""
_EXAMPLES = 3


@dataclass
class Findings:
    """Counts of faults, with examples, and of what was looked at."""

    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not self.faults.total()

    @property
    def may_still_come(self) -> bool:
        """Something is missing that a bridge at work may still bring."""
        return any(self.faults[name] for name in FAULTS if "missing" in name)

    def fault(self, name: str, example: str) -> None:
        """Count a fault."""
        assert name in FAULTS
        self.faults[name] += 1
        shown = self.examples.setdefault(name, [])
        if len(shown) < _EXAMPLES:
            shown.append(example)


def show(findings: Findings, console: Console) -> None:
    """Print the table."""
    table = Table("verified", "count", "", title="Ledger against database", title_justify="left")
    for name, count in findings.seen.items():
        table.add_row(name, f"{count:,}")
    table.add_section()
    for name, meaning in FAULTS.items():
        style = "bold red" if findings.faults[name] else "green"
        examples = "; ".join(findings.examples.get(name, ()))
        table.add_row(name, f"{findings.faults[name]:,}", examples or meaning, style=style)
    console.print(table)
    console.print("all is as it was sent" if findings.clean else f"{findings.faults.total():,} things differ")
