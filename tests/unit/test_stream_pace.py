"""How often a process looks for what its viewers are sent."""

import pytest

from api.stream.pace import Pace

MIB = 1 << 20


def paced(looks: int, *, look_s: float = 0.25, sent: int = 0, others: float = 0.0, allowed: float = 64 * MIB) -> Pace:
    """A pace after some looks, between which the process works for a part of the time."""
    pace, now, cpu = Pace(allowed), 1_000.0, 50.0
    for _ in range(looks):
        pace.begin(now, cpu)
        now, cpu = now + look_s, cpu + look_s
        pace.end(now, cpu, sent)
        rest = max(pace.every_s - look_s, 0.1)
        now, cpu = now + rest, cpu + rest * others
    return pace


@pytest.mark.parametrize(
    ("pace", "every_s"),
    [
        (paced(3), 1.0),
        (paced(1, others=1.0), 1.0),  # what the process did before the first look is not known
        (paced(3, others=1.0), 5.0),
        (paced(3, others=1.0, look_s=0.05), 2.5),
        (paced(3, others=1.0, look_s=0.01), 1.0),
        (paced(3, others=0.4), 1.0),
        (paced(3, look_s=2.0), 1.0),
        (paced(3, sent=128 * MIB), 2.0),
        (paced(3, sent=6_400 * MIB), 5.0),
        (paced(3, sent=128 * MIB, others=1.0, look_s=0.05), 2.5),
    ],
)
def test_busy_process_looks_for_a_small_part_of_its_time(pace: Pace, every_s: float) -> None:
    assert pace.every_s == pytest.approx(every_s)
    assert pace.is_slow is (every_s > 1)
