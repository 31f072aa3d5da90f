"""Rate limits: a token bucket for each key or address. Pure: the caller passes the time."""

from dataclasses import dataclass

_MOST = 100_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """Each client may send `burst` requests at once and `per_s` requests per second on average."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, client: str, now: float) -> float:
        """Consume a token; return 0 if there was one, otherwise the seconds until the next."""
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= _MOST:
                self._drop_full(now)
            bucket = self._buckets[client] = _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self._per_s
        bucket.tokens -= 1
        return 0.0

    def give_back(self, client: str) -> None:
        """Return a token that was consumed for nothing."""
        if (bucket := self._buckets.get(client)) is not None:
            bucket.tokens += 1

    def _drop_full(self, now: float) -> None:
        """Forget the clients that may send a burst, which are as new; all of them if there is no such."""
        kept = {c: b for c, b in self._buckets.items() if b.tokens + (now - b.at) * self._per_s < self._burst}
        self._buckets = kept if len(kept) < _MOST else {}
