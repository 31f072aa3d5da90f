"""Detects too many connections in a short time: two clients use one client id, or the link is unstable.

Some brokers report a session that was taken over (reason code 0x8E); Mosquitto 2.0.11 only closes the connection. Two
clients with one client id disconnect each other repeatedly, which can be counted with any broker. No I/O, no clock.
"""

from collections import deque

WINDOW_S = 60.0
MOST = 10


class ConnectRate:
    """The times of the last connections. Raises an alarm at most once per window while there are too many."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST)
        self._quiet_until = 0.0

    def alarms(self, now: float) -> bool:
        """Add a connection; True when it is the `MOST`-th within `WINDOW_S` and the last alarm is as long ago."""
        self._times.append(now)
        if now < self._quiet_until or len(self._times) < MOST or now - self._times[0] > WINDOW_S:
            return False
        self._quiet_until = now + WINDOW_S
        return True
