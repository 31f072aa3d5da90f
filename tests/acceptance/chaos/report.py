"""What a long run has shown, for people and as JSON."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from simulator.findings import FAULTS, Findings

_MISSING = tuple(name for name in FAULTS if "missing" in name)
_FOUND = {
    "lost": _MISSING,
    "doubled": ("duplicated", "reject duplicated", "stored twice"),
    "never_sent": ("invented", "different", "reject unexpected"),
    "figures_wrong": ("figure differs",),
}
"""What the verifier's faults mean for a run; all others are called wrong."""


def found(findings: Findings) -> dict[str, int]:
    """How much of a run was lost, doubled, never sent, answered wrongly, wrong otherwise."""
    counts = {word: sum(findings.faults[name] for name in names) for word, names in _FOUND.items()}
    return {**counts, "wrong": findings.faults.total() - sum(counts.values())}


def described(findings: Findings) -> str:
    """The verdict of a cycle or a run in a line, with an example of each fault."""
    wrong = [f"{count} {name}, as {findings.examples[name][0]}" for name, count in findings.faults.items()]
    kept = f"{findings.seen['readings in the history']} readings and {findings.seen['rejects as expected']} rejects"
    return "; ".join(wrong) or f"{kept}, all once"


@dataclass
class Report:
    """Sums over the cycles of one seed."""

    seed: int
    cycle: int = 0
    """The last that was begun."""
    cycles: int = 0
    """Finished and judged."""
    kills: int = 0
    items: int = 0
    """Readings, and what should be some, as often as they were sent: over MQTT, over HTTP, again."""
    readings: int = 0
    rejects: int = 0
    lost: int = 0
    doubled: int = 0
    never_sent: int = 0
    figures: int = 0
    """Answers of the API about energy that were compared in the end."""
    figures_wrong: int = 0
    wrong: int = 0
    puback_only_lost: int = 0
    """Acknowledged by the broker alone, and forgotten by it when it was killed or its queue was full."""
    held_back: int = 0
    """Acknowledged by the broker, and delivered only when the bridge connected again."""
    faults: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    not_judged: int | None = None
    """The cycle that was cut off, or got stuck, before everything had drained."""
    reconciled: bool = False
    """Whether the whole run was compared in the end; else the sums below mean nothing."""
    seconds: float = 0.0
    bridge_mib: int = 0
    """The most that a bridge has used, resident."""

    def add(self, names: list[str], findings: Findings) -> None:
        """One more cycle."""
        self.cycles += 1
        self.faults.update(names)
        self.items += findings.seen["items sent"]
        self.puback_only_lost += findings.seen["forgotten by the broker"]
        self.held_back += findings.seen["held back by the broker"]

    def close(self, everything: Findings, kills: int, bridge_bytes: int, seconds: float) -> None:
        """The last reconciliation is that of the whole run."""
        self.reconciled = True
        self.readings = everything.seen["readings in the history"]
        self.rejects = everything.seen["rejects as expected"]
        self.figures = everything.seen["figures compared"]
        for word, count in found(everything).items():
            setattr(self, word, count)
        self.bridge_mib = bridge_bytes // 2**20
        self.kills, self.seconds = kills, round(seconds, 1)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self), indent=2) + "\n")

    def __str__(self) -> str:
        unjudged = "" if self.not_judged is None else f"cycle {self.not_judged} was not judged\n"
        done = f"seed {self.seed}: {self.cycles} cycles, {sum(self.faults.values())} faults, "
        if not self.reconciled:
            return f"{unjudged}{done}{self.items} items; the whole run was not reconciled"
        return (
            f"{unjudged}{done}{self.kills} kills, "
            f"{self.items} items, {self.readings} readings and {self.rejects} rejects kept in "
            f"{self.seconds:.0f} s\nlost {self.lost}, doubled {self.doubled}, never sent {self.never_sent}, "
            f"wrong {self.wrong}; {self.figures_wrong} of {self.figures} figures wrong; "
            f"lost of what the broker alone had acknowledged: {self.puback_only_lost}, held back: {self.held_back}; "
            f"the bridge used {self.bridge_mib} MiB at most"
        )
