"""How often a process looks for what it sends to its viewers. Pure."""

LOOK_EVERY_S = 1.0
LEAST_OFTEN_S = 5.0
_BUSY = 0.5
"""With other work for more than this part of the time, a process is busy."""
_LOOKING = 0.02
"""What part of its time a busy process may look."""


class Pace:
    """Every second, unless all viewers together would be sent more than they may have, or the process is busy.

    A client that posts readings to a busy process waits for each look, which takes a sixth of a second for 10,000
    changed devices.
    """

    def __init__(self, allowed_bytes_per_s: float) -> None:
        self.every_s = LOOK_EVERY_S
        self._allowed = allowed_bytes_per_s
        self._began = self._rested = (0.0, 0.0)
        self._others = 0.0

    def begin(self, now_s: float, cpu_s: float) -> None:
        """A look begins: the time, and the CPU time that the process has used."""
        since, used = now_s - self._rested[0], cpu_s - self._rested[1]
        self._others = used / since if self._rested != (0.0, 0.0) and since > 0 else 0.0
        self._began = now_s, cpu_s

    def end(self, now_s: float, cpu_s: float, sent_bytes: int) -> None:
        """The look has ended: the time, the CPU time, and what was sent to all viewers since the last one."""
        every_s = max(sent_bytes / self._allowed, LOOK_EVERY_S)
        if self._others > _BUSY:
            every_s = max(every_s, (now_s - self._began[0]) / _LOOKING)
        self.every_s = min(every_s, LEAST_OFTEN_S)
        self._rested = now_s, cpu_s

    @property
    def is_slow(self) -> bool:
        """Whether it looks less often than every second."""
        return self.every_s > LOOK_EVERY_S
