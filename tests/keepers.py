"""A keeper to test: as a separate process, or in the test's event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bridge.keeper.attached import attached_days
from bridge.keeper.duties import companions, duties
from bridge.keeper.port import Companion, Duty
from bridge.keeper.quarters import Quarters
from bridge.keeper.service import Keeper
from bridge.settings.keeper import KeeperSettings
from bridge.store.session import Connection
from local.ports import free_port
from tests.bridges import Health, ServingProcess


async def summarize(connection: Connection) -> None:
    """Summarize every quarter hour that is over, as the keeper does."""
    quarters = Quarters(0.0, 5.0)
    await attached_days.run(connection)
    while await quarters.run(connection):
        pass


@contextlib.asynccontextmanager
async def keeping(
    database_url: str, own: Sequence[Duty] | None = None, beside: Sequence[Companion] = (), **others: object
) -> AsyncIterator[Health]:
    """A keeper in this event loop with all duties and companions, or with these; stopped on exit as by SIGTERM."""
    fields = {"database_url": database_url, "keeper_http_port": free_port(), **others}
    settings, stop = KeeperSettings.model_validate(fields), asyncio.Event()
    running = asyncio.create_task(
        Keeper(settings, own or duties(settings), beside if own else companions(settings)).run(stop)
    )
    try:
        yield Health(settings.keeper_http_port)
    finally:
        stop.set()
        await running


class KeeperProcess(ServingProcess):
    """A keeper, `python -m bridge keep`."""

    def __init__(self, directory: Path, database_url: str, **others: object) -> None:
        fields = {"database_url": database_url, **others}
        super().__init__("keeper", ["bridge", "keep"], directory, "keeper_http_port", free_port(), **fields)


@contextlib.asynccontextmanager
async def keeper_processes(
    directory: Path, database_url: str, count: int, **others: object
) -> AsyncIterator[list[KeeperProcess]]:
    """So many keeper processes, not started yet; killed on exit if they still run."""
    keepers = [KeeperProcess(directory, database_url, **others) for _ in range(count)]
    try:
        yield keepers
    finally:
        for keeper in keepers:
            if keeper.process.running:
                keeper.process.kill()
