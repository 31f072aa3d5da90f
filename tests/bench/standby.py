"""S7, S8: a primary with a synchronous standby on the same machine: what a failover costs, and what each commit."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from local.postgres import Postgres
from tests.bench.end_to_end import a_load, into_fresh_database
from tests.bench.machine import Machine
from tests.bench.outage import longest, longest_pause_s
from tests.bench.report import Figure, median_ratio
from tests.replicas import both, new_replica, promote, require_standby


async def s7(machine: Machine) -> list[Figure]:
    """How long nothing is stored when the primary is killed and its standby is promoted right after."""
    pauses_s = [await _failed_over(machine) for _ in range(3)]
    return [longest("S7", "failover: last commit to first commit", pauses_s, 15, 5)]


async def _failed_over(machine: Machine) -> float:
    async with Machine(machine.directory / "failing", machine.quick, 0, 0).running() as pair:
        primary, database = pair.postgres, urlsplit(pair.make_database()).path[1:]
        with (
            _standby(primary, pair.directory / "standby") as standby,
            machine.broker() as broker,
            machine.bridge_as(both(primary, standby, database, "bridge"), broker) as bridge,
        ):

            def fail() -> None:
                primary.process.kill()
                promote(standby)

            return await longest_pause_s(broker, bridge, fail, standby.url(database, "fleet"))


async def s8(machine: Machine) -> list[Figure]:
    """T1 with a synchronous standby, compared with T1 without a standby."""
    load = a_load(machine)
    rounds_ = []
    for _ in range(3):
        alone = await into_fresh_database(machine, load)
        with _standby(machine.postgres, machine.directory / "standby"):
            rounds_.append((await into_fresh_database(machine, load), alone))
    ratio, rounds = median_ratio([(secured.rate, alone.rate) for secured, alone in rounds_])
    secured, alone = rounds_[-1]
    made_of = f"{secured.rate:,.0f}/s : {alone.rate:,.0f}/s; {rounds}"
    return [Figure("S8", "T1 with a synchronous standby : without", ratio, 0.6, 0.8, detail=made_of)]


@contextlib.contextmanager
def _standby(primary: Postgres, directory: Path) -> Iterator[Postgres]:
    """A new standby, for which each commit of the primary waits."""
    standby = new_replica(primary, directory / "server")
    try:
        require_standby(primary, "*")
        yield standby
    finally:
        if primary.process.running:
            require_standby(primary, "")
        standby.process.kill()  # its data is not needed any more
        shutil.rmtree(directory, ignore_errors=True)
