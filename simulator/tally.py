"""Counts and latencies of a run, for the terminal."""

from dataclasses import dataclass, field
from math import exp, log

from simulator.contact import Contact, trouble_of


class Latencies:
    """A histogram with buckets 5 % apart, from a microsecond on."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0

    def add(self, seconds: float, count: int = 1) -> None:
        bucket = int(log(max(seconds, 1e-6) * 1e6) * 20)
        self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._total += count

    def percentile_ms(self, percent: float) -> float | None:
        """The quantile of the latencies for this share, in milliseconds; None when there is none yet."""
        left = self._total * percent / 100
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return exp((bucket + 1) / 20) / 1000
        return None


@dataclass
class Tally:
    """Counts of items, from the lanes."""

    sent: int = 0
    pubacks: int = 0
    receipts: int = 0
    answered: int = 0
    refused: int = 0
    rejected: int = 0
    """Rejects in receipts and HTTP responses."""
    warnings: int = 0
    """Warnings in receipts and HTTP responses."""
    reconnects: int = 0
    assignments: int = 0
    assignments_due: int = 0
    puback_latency: Latencies = field(default_factory=Latencies)
    receipt_latency: Latencies = field(default_factory=Latencies)
    answer_latency: Latencies = field(default_factory=Latencies)
    contacts: list[Contact] = field(default_factory=list)

    def contact(self, server: str) -> Contact:
        """A new contact with a server, for one lane."""
        self.contacts.append(contact := Contact(server))
        return contact

    @property
    def trouble(self) -> str:
        """Why the last attempt to reach a server failed; empty when all are reached."""
        return trouble_of(self.contacts)

    @property
    def unacknowledged(self) -> int:
        return self.sent - self.pubacks - self.answered - self.refused

    @property
    def acknowledged(self) -> int:
        """Items, receipts and assignments that a server has answered: it grows as long as the servers answer."""
        return self.pubacks + self.answered + self.refused + self.receipts + self.assignments
