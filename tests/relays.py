"""Relays: in the event loop of a test, or as processes of their own."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from bridge.relay import Relay
from bridge.settings.relay import RelaySettings
from bridge.streams.targets import TARGETS
from local.mosquitto import Mosquitto
from local.ports import free_port
from tests.bridges import Health, ServingProcess, in_this_loop
from tests.devices import publish_with_paho
from tests.until import until


def settings(broker: Mosquitto, **others: object) -> dict[str, object]:
    """The settings of a relay; `others` name the target and its stream."""
    return {"relay_mqtt_url": broker.bridge_url, "relay_http_port": free_port(), **others}


@asynccontextmanager
async def relaying(broker: Mosquitto, **others: object) -> AsyncIterator[Health]:
    """A ready relay in this event loop; stopped on exit as by SIGTERM."""
    fields = settings(broker, **others)
    relay = RelaySettings.model_validate(fields)
    target = TARGETS[relay.relay_target]
    stream = target.make(target.settings.model_validate(fields))
    async with in_this_loop(Relay(relay, stream).run, relay.relay_http_port) as health:
        yield health


class RelayProcess(ServingProcess):
    """A relay, `python -m bridge relay`."""

    argv: ClassVar[list[str]] = ["bridge", "relay"]

    def __init__(self, directory: Path, broker: Mosquitto, name: str, stream: Mapping[str, object]) -> None:
        fields = settings(broker, relay_name=name, **stream)
        port = int(str(fields.pop("relay_http_port")))
        super().__init__(f"relay-{name}", self.argv, directory, "relay_http_port", port, **fields)


async def through_two(
    directory: Path, broker: Mosquitto, stream: Mapping[str, object], messages: Sequence[tuple[str, bytes]]
) -> None:
    """Publish messages while two relays run, one of which is killed and started again; until both have all."""
    first, second = (RelayProcess(directory, broker, name, stream) for name in ("a", "b"))
    try:
        await first.start()
        await second.start()
        publishing = asyncio.create_task(publish_with_paho(broker.url, "5", messages))
        await until(lambda: first.metric("fleet_relay_acks_total"))
        first.process.kill()
        await first.start()
        await publishing
        await until(lambda: _acknowledged(second, len(messages)))
        await until(lambda: _idle(first))
        assert await first.stop() == 0
        assert await second.stop() == 0
    finally:
        for relay in (first, second):
            if relay.process.running:
                relay.process.kill()


async def _acknowledged(relay: RelayProcess, count: int) -> bool:
    return await relay.metric("fleet_relay_acks_total") == count


async def _idle(relay: RelayProcess) -> bool:
    return await relay.metric("fleet_relay_waiting") == 0
