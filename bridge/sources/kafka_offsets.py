"""The offsets up to which everything is in the database, by partition. Pure.

A partition belongs to this bridge from an assignment to its revocation. Messages of an earlier assignment do not count
for a later one: another bridge may have read them meanwhile.
"""

from collections.abc import Iterable


class Partition:
    """One assignment of a partition."""

    __slots__ = ("committed", "number", "offered", "owned", "settled")

    def __init__(self, number: int, start: int) -> None:
        self.number = number
        self.offered = self.settled = self.committed = start
        """The offset behind the last message that was offered, stored, and committed to Kafka."""
        self.owned = True


class Offsets:
    """The partitions that this bridge owns."""

    def __init__(self) -> None:
        self.owned: dict[int, Partition] = {}

    def assign(self, starts: dict[int, int]) -> None:
        """Own partitions from these offsets on."""
        self.owned |= {number: Partition(number, start) for number, start in starts.items()}

    def revoke(self, numbers: Iterable[int]) -> None:
        """Own partitions no longer; their messages that are settled later are not committed."""
        for number in numbers:
            if (partition := self.owned.pop(number, None)) is not None:
                partition.owned = False

    def commit_again(self) -> None:
        """Commit all offsets once more: a commit was refused."""
        for partition in self.owned.values():
            partition.committed = -1

    def outstanding(self, numbers: Iterable[int]) -> bool:
        """Whether messages of these partitions were offered and are not settled."""
        return any((p := self.owned.get(number)) is not None and p.settled < p.offered for number in numbers)

    def to_commit(self, numbers: Iterable[int] | None = None) -> dict[int, int]:
        """The offsets to commit, of all partitions or of these; they count as committed from now on."""
        chosen = self.owned.values() if numbers is None else [self.owned[n] for n in numbers if n in self.owned]
        ready = {p.number: p.settled for p in chosen if p.settled > p.committed}
        for number, offset in ready.items():
            self.owned[number].committed = offset
        return ready
