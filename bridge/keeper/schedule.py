"""When each duty is due, how far it lags behind and whether that is alarming. Pure: the caller passes the time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.backoff import Backoff
from bridge.keeper.port import Duty

FAILURES = 3
"""So many failures in succession make the keeper not ready."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


@dataclass(slots=True)
class _Appointment:
    """The next run of a duty."""

    duty: Duty
    due_at: float
    try_at: float
    """Later than `due_at` after a failure."""
    failures: int = 0
    reason: str = ""
    backoff: Backoff = field(default_factory=lambda: Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S))

    def lag_s(self, now: float) -> float:
        return max(0.0, now - self.due_at)

    def problem(self, now: float) -> str | None:
        if self.failures >= FAILURES:
            return f"{self.duty.name}: the last {self.failures} runs failed: {self.reason}"
        if self.lag_s(now) > self.duty.every_s:
            return f"{self.duty.name}: overdue by {self.lag_s(now):.0f} s"
        return None


class Schedule:
    """The duties of one process. All are due at once; times are seconds of one monotonic clock."""

    def __init__(self, duties: Sequence[Duty], now: float) -> None:
        self._appointments = {duty.name: _Appointment(duty, now, now) for duty in duties}

    def next(self, now: float) -> Duty | None:
        """The duty to run now: of those that are due, the one whose turn came first."""
        first = self._first()
        return first.duty if first.try_at <= now else None

    def wait_s(self, now: float) -> float:
        """How long until there is a duty to run."""
        return max(0.0, self._first().try_at - now)

    def succeeded(self, duty: Duty, now: float, *, more: bool = False) -> None:
        """It is due again after its period; at once, after the others that are due, when there is more to do."""
        due_at = now if more else now + duty.every_s
        self._appointments[duty.name] = _Appointment(duty, due_at, due_at)

    def failed(self, duty: Duty, now: float, reason: str) -> None:
        """It stays due, and is tried again after a pause."""
        appointment = self._appointments[duty.name]
        appointment.failures += 1
        appointment.reason = reason
        appointment.try_at = now + appointment.backoff.next()

    def rest(self) -> None:
        """Another process leads: nothing is due here."""
        for duty in [appointment.duty for appointment in self._appointments.values()]:
            self._appointments[duty.name] = _Appointment(duty, math.inf, math.inf)

    def resume(self, now: float) -> None:
        """This process leads: what rested is due now; the others keep their time, so that a failed one still pauses."""
        for appointment in self._appointments.values():
            if appointment.due_at == math.inf:
                appointment.due_at = appointment.try_at = now

    def lag_s(self, duty: Duty, now: float) -> float:
        """For how long the duty has been due without a success."""
        return self._appointments[duty.name].lag_s(now)

    def problem(self, now: float) -> str | None:
        """Why an operator must look: a duty is overdue by its period, or its last runs failed."""
        return next(filter(None, (a.problem(now) for a in self._appointments.values())), None)

    def _first(self) -> _Appointment:
        return min(self._appointments.values(), key=lambda appointment: appointment.try_at)
