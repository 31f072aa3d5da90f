"""The platform under test with three NATS nodes instead of a broker."""

import asyncio
import json
from typing import Any

from local.nats import Nats
from tests.acceptance.chaos.stack import through
from tests.acceptance.chaos.stream_stack import StreamStack
from tests.nats_devices import nats_client

STREAM = "$MQTT_msgs"


class NatsStack(StreamStack):
    """Bridges reach each node through a link, devices the first one, and the nodes each other."""

    version = "3.1.1"
    without = StreamStack.without | {"mqtt", "broker"}
    partitions = 2
    owned = "fleet_jetstream_connected"

    def _start_broker(self) -> str:
        self.nats = Nats(self.directory / "nats", 3)
        self.nodes = self.nats.nodes
        self.route_links = [self._link(node.route_port) for node in self.nats.nodes]
        for node, link in zip(self.nats.nodes, self.route_links, strict=True):
            node.advertised_route_port = link.port
        self._opened.callback(self.nats.stop)
        self.nats.start()
        self.stream_links = [self._link(node.port) for node in self.nats.nodes]
        self.device_link = self._link(self.nats.nodes[0].mqtt_port)
        return through(self.nats.mqtt_urls[0], self.device_link)

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
            "FLEET_NATS_PARTITIONS": str(self.partitions),
        }

    def ask(self, subject: str, body: object = None) -> dict[str, Any]:
        """The answer of JetStream's API, past the links. Raises `OSError` when there is none."""
        return self.request(f"$JS.API.{subject}", b"" if body is None else json.dumps(body).encode())

    def request(self, subject: str, payload: bytes) -> dict[str, Any]:
        """The answer to a message, past the links. Raises `OSError` when there is none."""

        async def asked() -> dict[str, Any]:
            client = await nats_client(self.nats.bridge_url)
            try:
                answer = await client.request(subject, payload, timeout=5)
            finally:
                await client.close()
            return dict(json.loads(answer.data))

        return asyncio.run(asked())

    def acknowledged(self) -> int:
        """The last message of the stream, by its sequence, that a bridge has acknowledged."""
        consumers = self.ask(f"CONSUMER.LIST.{STREAM}", {"offset": 0})["consumers"]
        return max(int(consumer["ack_floor"]["stream_seq"]) for consumer in consumers)

    def leader(self) -> int:
        """The number of the node that leads the stream, from 0."""
        name = self.ask(f"STREAM.INFO.{STREAM}")["cluster"]["leader"]
        return [node.name for node in self.nats.nodes].index(name)
