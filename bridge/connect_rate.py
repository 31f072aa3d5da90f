"""When connections follow each other too fast: two clients fight for one session, or the link breaks all the time.

A broker that sends a reason (0x8E) tells of a session taken over; Mosquitto 2.0.11 just closes. But whoever fights
for a client id makes the other one connect again and again, and that can be counted anywhere. Pure policy.
"""

from collections import deque

WINDOW_S = 60.0
MOST = 10


class ConnectRate:
    """The times of the last connections; alarms once a window while they are too many."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST)
        self._quiet_until = 0.0

    def alarms(self, now: float) -> bool:
        """Add a connection; True when it is the `MOST`-th within `WINDOW_S` and nothing was said in this window."""
        self._times.append(now)
        if now < self._quiet_until or len(self._times) < MOST or now - self._times[0] > WINDOW_S:
            return False
        self._quiet_until = now + WINDOW_S
        return True
