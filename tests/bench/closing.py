"""F7, F8: what it costs to summarize quarter hours that are over, and how long it takes under load."""

import time
from datetime import datetime
from typing import NamedTuple

from bridge.keeper.leader import leading
from bridge.keeper.quarters import Quarters
from bridge.store.late_marks import QUARTER
from bridge.store.session import Connection
from tests.bench.cpu import cpu_of
from tests.bench.end_to_end import DEVICES, until
from tests.bench.fleet import keeper_settings
from tests.bench.keeping import MINUTES, Waiting, delay_s
from tests.bench.load import Load, this_minute
from tests.bench.machine import Machine, flood
from tests.bench.questions import RATE
from tests.bench.report import Figure

_TIMEOUT_S = 600.0
_LOAD_MINUTES = 5
_SETTLED = 5 * RATE


async def f7(machine: Machine) -> list[Figure]:
    """CPU of the keeper and of its session, while it summarizes one quarter hour after the other."""
    quarters = 4 if machine.quick else 16
    waiting = Waiting(DEVICES * quarters * MINUTES, DEVICES, this_minute())
    with machine.database() as url:
        await waiting.store(url)
        machine.postgres.sql("CHECKPOINT")
        async with leading(keeper_settings(machine, url)) as session:
            began = _Cpu.of(session)
            for n in range(quarters):
                await _close(session, waiting.since + (n + 1) * QUARTER)
            used = _Cpu.of(session).since(began, waiting.readings)
    detail = f"keeper {used.keeper:.2f} us, its session {used.session:.2f} us; {waiting.readings:,} readings"
    detail += f" of {waiting.devices:,} devices, {quarters} quarter hours"
    return [Figure("F7", "CPU of summaries a reading", used.keeper + used.session, 3, 1.5, True, " us", detail=detail)]


class _Cpu(NamedTuple):
    """Of this process, in which the keeper's code runs, and of the server's process for its session."""

    keeper: float
    session: float

    @classmethod
    def of(cls, session: Connection) -> "_Cpu":
        return cls(time.process_time(), cpu_of(session.get_server_pid()))

    def since(self, began: "_Cpu", readings: int) -> "_Cpu":
        """Microseconds a reading."""
        return _Cpu(*((now - before) / readings * 1e6 for now, before in zip(self, began, strict=True)))


async def _close(session: Connection, end: datetime) -> None:
    """Summarize the quarter hours up to `end`."""
    quarters = Quarters(delay_s(end), _TIMEOUT_S)
    while await quarters.run(session):
        pass


async def f8(machine: Machine) -> list[Figure]:
    """How long it takes to summarize a quarter hour of every device, while a bridge stores the next readings.

    The keeper begins when its delay and up to one period of its duty have passed; this comes before the time measured.
    """
    devices = 100_000 if machine.quick else 1_000_000
    load = Load(RATE * 60 * _LOAD_MINUTES, devices, this_minute(), stride=7_919)
    waiting = Waiting(devices * MINUTES, devices, load.first_at)
    with machine.database() as url:
        await waiting.store(url)
        machine.postgres.sql("CHECKPOINT")
        with machine.broker() as broker, machine.bridge(url, broker) as bridge:
            async with flood(broker, load, rate=RATE) as process, leading(keeper_settings(machine, url)) as session:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                began = await until(lambda: bridge.counted("stored") >= _SETTLED)
                before = bridge.counted("stored")
                await _close(session, waiting.until)
                took_s = time.monotonic() - began
                rate = (bridge.counted("stored") - before) / took_s
                late = await session.fetchval("SELECT count(*) FROM vehicle_quarter_dirty")
                if late or process.returncode is not None:
                    raise RuntimeError("the load was late, or ended before the quarter hour was summarized")
    detail = f"a quarter hour of {devices:,} devices, {waiting.readings:,} readings; {rate:,.0f}/s stored meanwhile"
    must, aim = (None, None) if machine.quick else (5, 2)
    return [Figure("F8", "time to summarize a quarter hour", took_s / 60, must, aim, True, " min", detail=detail)]
