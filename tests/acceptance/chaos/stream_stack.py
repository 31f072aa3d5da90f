"""The platform under test with three NATS nodes instead of a broker, and a link before each of them."""

import asyncio
import json
from typing import Any

from local.nats import Nats
from tests.acceptance.chaos.stack import Stack
from tests.nats_devices import nats_client

STREAM = "$MQTT_msgs"


class StreamStack(Stack):
    """Bridges reach each node through a link, devices the first one."""

    version = "3.1.1"

    def _start_broker(self) -> str:
        self.nats = Nats(self.directory / "nats", 3)
        self._opened.callback(self.nats.stop)
        self.nats.start()
        self.stream_links = [self._link(node.port) for node in self.nats.nodes]
        self.device_link = self._link(self.nats.nodes[0].mqtt_port)
        return self.nats.mqtt_urls[0].replace(f":{self.nats.nodes[0].mqtt_port}", f":{self.device_link.port}")

    @property
    def _source(self) -> dict[str, str]:
        url = self.nats.bridge_url
        for node, link in zip(self.nats.nodes, self.stream_links, strict=True):
            url = url.replace(f":{node.port}", f":{link.port}")
        return {
            "FLEET_SOURCE": "jetstream",
            "FLEET_NATS_URL": url,
            "FLEET_NATS_REPLICAS": "3",
            "FLEET_NATS_WINDOW": "1000",
            "FLEET_NATS_PARTITIONS": "2",
        }

    def ask(self, subject: str, body: object = None) -> dict[str, Any]:
        """The answer of JetStream's API, past the links. Raises `OSError` when there is none."""

        async def asked() -> dict[str, Any]:
            client = await nats_client(self.nats.bridge_url)
            try:
                request = b"" if body is None else json.dumps(body).encode()
                answer = await client.request(f"$JS.API.{subject}", request, timeout=5)
            finally:
                await client.close()
            return dict(json.loads(answer.data))

        return asyncio.run(asked())

    def leader(self) -> int:
        """The number of the node that leads the stream, from 0."""
        name = self.ask(f"STREAM.INFO.{STREAM}")["cluster"]["leader"]
        return [node.name for node in self.nats.nodes].index(name)
