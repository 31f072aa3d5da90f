"""Shares of the devices in what promises nothing: messages with QoS 0, and notices of rejects. Pure.

The broker has one queue for the bridge, so the messages of all devices wait behind those of one that sends without a
pause. Messages with QoS 0 are discarded beyond a device's share; they cost little to read.
"""

_MOST_DEVICES = 50_000


class Shares:
    """A bucket of messages for each device: `burst` at once, and `per_s` a second."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._used: dict[str, tuple[float, float]] = {}

    def take(self, device: str, now: float) -> bool:
        """Whether another message of the device may be taken; `now` is in seconds, of any monotonic clock."""
        used = self._left_over(self._used.get(device, (0.0, now)), now)
        if used + 1 > self._burst:
            return False
        if len(self._used) >= _MOST_DEVICES:
            self._forget(now)
        self._used[device] = used + 1, now
        return True

    def _left_over(self, entry: tuple[float, float], now: float) -> float:
        used, at = entry
        return max(0.0, used - (now - at) * self._per_s)

    def _forget(self, now: float) -> None:
        """Forget devices whose bucket is full again; all, if that is not half of them."""
        self._used = {device: entry for device, entry in self._used.items() if self._left_over(entry, now)}
        if len(self._used) > _MOST_DEVICES // 2:
            self._used.clear()
