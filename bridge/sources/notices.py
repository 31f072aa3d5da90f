"""Tells a device what was rejected when it did not ask for a receipt, which MQTT 3.1.1 cannot do."""

import json
from collections.abc import Iterable, Iterator, Sequence

from bridge.delivery import Kept, Outcome
from bridge.errors import Rejected
from bridge.sources.shares import Shares

_PER_S, _AT_ONCE = 1.0, 100
_MOST_CHARACTERS = 1_024


class Notices:
    """One notice for each rejected reading, below the topic of its device: 100 at once, and one a second.

    They are no part of the promise: a notice that is lost, or one too many, is not sent later.
    """

    def __init__(self) -> None:
        self._shares = Shares(_PER_S, _AT_ONCE)

    def of(self, outcomes: Sequence[Outcome], answered: Iterable[range], now: float) -> Iterable[tuple[str, bytes]]:
        """Topic and payload of each notice; `answered` are the ranges of the outcomes that get a receipt.

        `now` is in seconds, of any monotonic clock.
        """
        if outcomes.count(Kept.STORED) == len(outcomes):
            return ()
        return self._of_rejects(outcomes, {n for answers in answered for n in answers}, now)

    def _of_rejects(self, outcomes: Sequence[Outcome], answered: set[int], now: float) -> Iterator[tuple[str, bytes]]:
        for n, outcome in enumerate(outcomes):
            if n not in answered and isinstance(outcome, Rejected):
                topic = _topic(outcome)
                if topic is not None and self._shares.take(topic, now):
                    yield topic, _notice(outcome)


def _topic(rejected: Rejected) -> str | None:
    """`fleet/{kind}/{id}/rejects`, if it came by the telemetry topic of a device."""
    topic = rejected.topic or ""
    if topic.startswith("fleet/") and topic.endswith("/telemetry"):
        return f"{topic.removesuffix('telemetry')}rejects"
    return None


def _notice(rejected: Rejected) -> bytes:
    text = rejected.payload[: 4 * _MOST_CHARACTERS].decode(errors="replace")[:_MOST_CHARACTERS]
    return json.dumps({"reason": str(rejected), "reading": text}).encode()
