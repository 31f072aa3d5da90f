"""The result of `verify`: counts, and a few examples of each difference."""

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

FAULTS = {
    "missing after PUBACK": "acknowledged by the broker, and not in the database",
    "missing after receipt": "a receipt was sent, and it is not in the database",
    "missing after HTTP answer": "answered with 201, 207 or 422, and not in the database",
    "duplicated": "in the history more than once",
    "invented": "in the history or the live state, never sent",
    "different": "in the history with other values than were sent",
    "stored twice": "called newly stored by the receipts or answers of several messages",
    "live differs": "the live row is not the newest of the history with the last known values",
    "reject missing": "acknowledged, and missing in the rejects",
    "reject duplicated": "in the rejects more than once",
    "reject unexpected": "in the rejects, but not sent, or with another reason",
    "warnings differ": "a receipt or HTTP response has unexpected or missing warnings",
    "energy differs": "a device's total of interval energies is not the simulated truth",
    "register differs": "the energy from a register's values is not the simulated truth",
    "efficiency differs": "a vehicle's DC over AC is not the simulated truth",
    "figure differs": "a figure of the API is not what follows from the stored readings",
}
"""All differences; each count must be 0."""
_EXAMPLES = 3


@dataclass
class Findings:
    """Counts of differences, with examples, and of the compared items."""

    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not self.faults.total()

    @property
    def may_still_come(self) -> bool:
        """Whether an item is missing that a running bridge may still store."""
        return any(self.faults[name] for name in FAULTS if "missing" in name)

    def fault(self, name: str, example: str) -> None:
        """Count a difference."""
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
    console.print("no differences" if findings.clean else f"{findings.faults.total():,} differences")
