"""Programs start, and stop on SIGTERM, with the least and with the greatest accepted value of every number."""

import asyncio
from pathlib import Path

import pytest

from bridge.settings.api import ApiSettings
from bridge.settings.bridge import BridgeSettings
from bridge.settings.group import Group
from bridge.settings.keeper import KeeperSettings
from bridge.settings.mqtt import MqttSettings
from local.mosquitto import Mosquitto
from local.ports import free_port
from tests.bridges import BridgeProcess, ServingProcess
from tests.keepers import KeeperProcess
from tests.setting_limits import limits_of
from tests.until import until

pytestmark = pytest.mark.anyio


def extremes(which: int, *kinds: type[Group]) -> dict[str, object]:
    """The least (0) or greatest (1) values, without the ports."""
    limits = {name: limit for kind in kinds for name, limit in limits_of(kind).items()}
    return {name: limit[which] for name, limit in limits.items() if not name.endswith("port")}


@pytest.mark.parametrize("which", [0, 1], ids=["least", "greatest"])
async def test_programs_start_and_stop_with_extreme_settings(
    tmp_path: Path, broker: Mosquitto, database_url: str, which: int
) -> None:
    api = extremes(which, ApiSettings) | {"database_url": database_url}
    programs = (
        BridgeProcess(tmp_path, broker.bridge_url, database_url, **extremes(which, BridgeSettings, MqttSettings)),
        KeeperProcess(tmp_path, database_url, **extremes(which, KeeperSettings)),
        ServingProcess("api", ["api", "run"], tmp_path, "http_port", free_port(), **api),
    )
    try:
        for program in programs:
            program.process.start()
        for program in programs:
            await until(lambda program=program: lives(program, ready=bool(which)))
        assert await asyncio.gather(*(program.stop() for program in programs)) == [0, 0, 0]
    finally:
        for program in programs:
            if program.process.running:
                program.process.kill()
    for program in programs:
        assert "Traceback" not in program.process.log_tail()


async def lives(program: ServingProcess, *, ready: bool) -> bool:
    """Whether it answers; with the least time limits no database can be in time."""
    assert program.process.running, program.process.log_tail()
    return await program.ready() if ready else (await program.get("/healthz"))[0] == 200
