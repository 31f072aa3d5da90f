"""The benchmark with devices in TLS works: each variant stores every reading. Nothing is measured here."""

import asyncio
from pathlib import Path

from tests.bench import tls
from tests.bench.load import Load, this_minute
from tests.bench.machine import Machine
from tests.bench.report import Figure


async def _measured(directory: Path) -> list[Figure]:
    async with Machine(directory, quick=True, rows=0, minutes=1).running() as machine:
        return await tls.measured(machine, Load(400, 8, this_minute()), rounds=1)


def test_tls_measure_stores_every_reading_in_each_way(tmp_path: Path) -> None:
    figures = asyncio.run(_measured(tmp_path / "servers"))
    assert [figure.key for figure in figures] == ["T1 tls", "T1 mtls"]
    assert all(figure.value > 0 and figure.ceiling for figure in figures)
