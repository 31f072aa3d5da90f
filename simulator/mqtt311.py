"""An MQTT 3.1.1 lane, for brokers without MQTT 5 such as a NATS cluster: QoS 1, reconnection without loss.

The client is paho-mqtt, whose thread connects again and publishes again what was not acknowledged, in the same order.
Its callbacks continue in the event loop, to which the ledger and the tally belong.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from bridge.contract import KIND_OF
from bridge.mqtt.url import Broker
from simulator.fleet import Device
from simulator.lane import Waiting
from simulator.ledger import IN_ARRAY, PUBACK, RECEIPT, RECEIPT_ASKED, LedgerWriter
from simulator.message import Message
from simulator.mqtt import Refused
from simulator.tally import Tally

_MOST_IN_FLIGHT = 1_000
_KEEP_ALIVE_S = 30
_LONGEST_PAUSE_S = 5
_REFUSALS = ("Bad user name or password", "Not authorized")


class _InFlight(NamedTuple):
    sent_at: float
    first: int
    items: int


class Mqtt311Lane:
    """Publishes the messages of its devices, by their numbers, over one connection at a time.

    A message that asks for a receipt has one more level in its topic; the receipt comes to that level of the device's
    receipt topic.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        devices: Mapping[int, Device],
        ledger: LedgerWriter,
        tally: Tally,
        receipt_share: float,
        waiting: Waiting,
    ) -> None:
        self._address = broker.host, broker.port
        self._topics = {number: KIND_OF[device.kind].topic(device.id) for number, device in devices.items()}
        self._ledger, self._tally = ledger, tally
        self._contact = tally.contact(f"broker {broker.host}:{broker.port}")
        self._receipt_share = receipt_share
        self._owed_receipts = 0.0
        self._waiting = waiting
        self._in_flight: dict[int, _InFlight] = {}
        self._awaited: dict[str, _InFlight] = {}
        self._ended: asyncio.Future[None] | None = None
        self._client_id = client_id
        self._client = self._made(client_id, broker)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._in_flight

    @property
    def awaits_receipts(self) -> bool:
        return bool(self._awaited)

    def offer(self, message: Message) -> None:
        self._waiting.put(message)
        self._pump()

    @property
    def is_full(self) -> bool:
        return self._waiting.is_full

    async def room(self) -> None:
        await self._waiting.room()

    async def run(self) -> None:
        """Connect, and reconnect with increasing pauses, until cancelled. Raises `Refused`."""
        loop = asyncio.get_running_loop()
        self._ended = ended = loop.create_future()
        self._listen(loop)
        self._client.connect_async(*self._address, _KEEP_ALIVE_S)
        self._client.loop_start()
        try:
            await ended
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def _made(self, client_id: str, broker: Broker) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv311)
        if broker.username is not None:
            client.username_pw_set(broker.username, None if broker.password is None else broker.password.decode())
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        client.max_inflight_messages_set(_MOST_IN_FLIGHT)
        client.reconnect_delay_set(1, _LONGEST_PAUSE_S)
        return client

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let what paho's thread reports continue in the event loop, unless that has ended."""

        def soon(callback: Callable[..., None], *arguments: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback, *arguments)

        client = self._client
        client.on_connect = lambda _c, _u, _f, reason, _p: soon(self._connected, reason.is_failure, str(reason))
        client.on_connect_fail = lambda *_: soon(self._contact.failed, ConnectionError("no connection"))
        client.on_disconnect = lambda _c, _u, _f, reason, _p: soon(self._disconnected, str(reason))
        client.on_publish = lambda _c, _u, mid, _r, _p: soon(self._acknowledged, mid, time.monotonic())
        client.on_message = lambda _c, _u, message: soon(self._receipt, message, time.monotonic())

    def _connected(self, is_failure: bool, reason: str) -> None:
        if not is_failure:
            self._contact.made()
            own = [(f"{_receipts_of(topic)}/+", 1) for topic in self._topics.values()] if self._receipt_share else []
            if own:
                self._client.subscribe(own)
            self._pump()
        elif reason not in _REFUSALS:
            self._contact.failed(ConnectionError(reason))
        elif self._ended is not None and not self._ended.done():
            self._ended.set_exception(Refused(f"the broker refuses this account: {reason}"))

    def _disconnected(self, reason: str) -> None:
        self._tally.reconnects += 1
        self._contact.failed(ConnectionError(reason))

    # -- out

    def _pump(self) -> None:
        """Send as many messages as the window allows: first write all of them to the ledger, then to the client."""
        out: list[tuple[Message, int, bool]] = []
        while self._contact.is_made and self._waiting and len(self._in_flight) + len(out) < _MOST_IN_FLIGHT:
            out.append(self._recorded(self._waiting.take()))
        self._ledger.flush()
        for message, first, asks in out:
            self._publish(message, first, asks)

    def _recorded(self, message: Message) -> tuple[Message, int, bool]:
        self._owed_receipts += self._receipt_share
        asks = self._owed_receipts >= 1
        self._owed_receipts -= asks
        flags = (IN_ARRAY if message.is_array else 0) | (RECEIPT_ASKED if asks else 0)
        return message, self._ledger.sent(message.device, message.items, flags), asks

    def _publish(self, message: Message, first: int, asks: bool) -> None:
        topic, flight = self._topics[message.device], _InFlight(time.monotonic(), first, len(message.items))
        if asks:
            token = f"{self._client_id}-{first}"
            self._awaited[f"{_receipts_of(topic)}/{token}"] = flight
            topic = f"{topic}/{token}"
        published = self._client.publish(topic, message.payload, 1)
        assert published.rc in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN), published.rc
        self._in_flight[published.mid] = flight
        self._tally.sent += flight.items

    # -- in

    def _acknowledged(self, mid: int, at: float) -> None:
        if (flight := self._in_flight.pop(mid, None)) is not None:
            self._ledger.acknowledged(PUBACK, flight.first, flight.items)
            self._tally.pubacks += flight.items
            self._tally.puback_latency.add(at - flight.sent_at, flight.items)
        self._pump()

    def _receipt(self, message: MQTTMessage, at: float) -> None:
        if (flight := self._awaited.pop(message.topic, None)) is None:
            return
        receipt = json.loads(message.payload)
        self._tally.receipts += flight.items
        self._tally.rejected += len(receipt["rejected"])
        self._tally.warnings += self._ledger.told(RECEIPT, flight.first, flight.items, receipt)
        self._tally.receipt_latency.add(at - flight.sent_at, flight.items)


def _receipts_of(topic: str) -> str:
    """The topic above the receipts for messages to `topic`."""
    return topic.removesuffix("telemetry") + "receipt"
