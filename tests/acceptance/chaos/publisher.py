"""The fleet, in a process of its own: it publishes, and records in the simulator's ledger what it is promised.

Commands come on stdin, one a line: `publish CYCLE COUNT RATE`, `drain CYCLE`. It answers `published CYCLE` and
`drained CYCLE`. It behaves as a device should: what is not acknowledged is sent again, and so is what asked for a
receipt and got none. The clients are paho-mqtt and httpx, which share nothing with the bridge.
"""

import itertools
import json
import os
import queue
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.backoff import Backoff
from simulator.ledger import ANSWERED, IN_ARRAY, PUBACK, RECEIPT, RECEIPT_ASKED, REFUSED, VIA_HTTP, LedgerWriter
from tests.acceptance.chaos.http_client import HttpClient
from tests.acceptance.chaos.workload import Message, Protocol, Workload

_ANSWER_AGAIN_S, _LONGEST_S = 1.0, 60.0
"""After at most this long without a receipt the same is sent again, and then each time after twice as long."""
_BURST_S = 0.02

Sent = tuple[int, Message]
"""A message over MQTT, and the number of its first item in the ledger."""


class Publisher:
    """Sends over MQTT and HTTP and keeps the ledger. The clients' threads only leave word of what came."""

    def __init__(
        self,
        url: str,
        api_url: str,
        api_key: str,
        ledger: LedgerWriter,
        workload: Workload,
        version: str,
        *,
        receipts: bool,
    ) -> None:
        self._ledger = ledger
        self._has_receipts = receipts
        self._has_properties = version == "5"
        self._workload = workload
        self._devices: dict[str, int] = {}
        self._flying: dict[int, Sent] = {}
        self._refused: list[Sent] = []
        self._unanswered: dict[int, Sent] = {}
        self._posting: set[int] = set()
        self._came: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._http = HttpClient(api_url, api_key, self._posted)
        parts = urlsplit(url)
        protocol = MQTTProtocolVersion.MQTTv5 if self._has_properties else MQTTProtocolVersion.MQTTv311
        clean = None if self._has_properties else False
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="chaos-publisher", clean_session=clean, protocol=protocol
        )
        client.username_pw_set(parts.username, parts.password)
        client.reconnect_delay_set(1, 1)
        client.max_inflight_messages_set(500)
        client.on_connect = self._connected
        client.on_publish = self._acknowledged
        client.on_message = self._answered
        connect = partial(client.connect, parts.hostname or "", parts.port or 1883, keepalive=5)
        if self._has_properties:
            connect(clean_start=False, properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=3600))
        else:
            connect()
        client.loop_start()

    def publish(self, cycle: int, count: int, rate: float) -> None:
        """`count` messages in bursts, at `rate` a second."""
        messages = map(self._able, self._workload.messages(cycle, count))
        burst = max(1, round(rate * _BURST_S))
        due = time.monotonic()
        while gathered := list(itertools.islice(messages, burst)):
            self._ledger.mark(time.monotonic())
            recorded = [
                (protocol, self._record(message, protocol), message)
                for message in gathered
                for protocol in message.protocols
            ]
            self._ledger.flush()
            for protocol, first, message in recorded:
                if protocol == "mqtt":
                    self._send((first, message))
                else:
                    self._posting.add(first)
                    self._http.send(first, message)
            due += burst / rate
            self._collect(due)

    def drain(self, cycle: int) -> None:
        """Return when all is acknowledged, every receipt is here, and so is that of a last message behind them."""
        self._settle()
        sentinel = self._able(self._workload.sentinel(cycle))
        self._ledger.mark(time.monotonic())
        first = self._record(sentinel, "mqtt")
        self._ledger.flush()
        self._send((first, sentinel))
        self._settle()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._ledger.close(complete=False)

    def _able(self, message: Message) -> Message:
        """The message, asking for no receipt where none comes."""
        return message._replace(wants_receipt=message.wants_receipt and self._has_receipts)

    def _record(self, message: Message, protocol: Protocol) -> int:
        """Record that it will be sent as soon as the ledger is flushed; the number of its first item."""
        if message.device not in self._devices:
            self._devices[message.device] = len(self._devices)
            self._ledger.device(message.kind, message.device)
        flags = (IN_ARRAY if message.is_array else 0) | (VIA_HTTP if protocol == "http" else 0)
        if message.wants_receipt and protocol == "mqtt":
            flags |= RECEIPT_ASKED
        return self._ledger.sent(self._devices[message.device], message.items, flags)

    def _settle(self) -> None:
        backoff = Backoff(_ANSWER_AGAIN_S, _LONGEST_S)
        ask_at = time.monotonic() + backoff.next()
        while self._flying or self._refused or self._unanswered or self._posting:
            self._collect(time.monotonic() + 0.02)
            again, self._refused = self._refused, []
            if time.monotonic() > ask_at and not self._flying:
                again += self._unanswered.values()
                ask_at = time.monotonic() + backoff.next()
            for sent in again:
                self._send(sent)
        self._ledger.flush()

    def _collect(self, until: float) -> None:
        """Record what comes until then."""
        while True:
            try:
                self._came.get(timeout=max(0.0, until - time.monotonic()))()
            except queue.Empty:
                return

    def _send(self, sent: Sent) -> None:
        first, message = sent
        asks, topic = None, message.topic
        if message.wants_receipt:
            self._unanswered[first] = sent
            if self._has_properties:
                correlation = f"{first} {len(message.items)}".encode()
                receipt = topic.replace("telemetry", "receipt")
                asks = properties(PacketTypes.PUBLISH, ResponseTopic=receipt, CorrelationData=correlation)
            else:
                topic = f"{topic}/{first}-{len(message.items)}"
        published = self._client.publish(topic, message.payload, qos=1, properties=asks)
        self._flying[published.mid] = sent

    def _connected(self, client: paho.Client, *_: Any) -> None:
        level = "" if self._has_properties else "/+"
        client.subscribe([(f"fleet/{kind}/+/receipt{level}", 1) for kind in ("vehicle", "meter")])

    def _acknowledged(self, _client: paho.Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        self._came.put(partial(self._note_puback, mid, reason.value, time.monotonic()))

    def _note_puback(self, mid: int, reason: int, at: float) -> None:
        first, message = sent = self._flying.pop(mid)
        self._ledger.mark(at)
        if reason == 0:
            self._ledger.acknowledged(PUBACK, first, len(message.items))
        else:  # 0x10: nobody has subscribed, so the broker has not kept it
            self._ledger.acknowledged(REFUSED, first, len(message.items))
            self._refused.append(sent)

    def _answered(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if self._has_properties:
            first, count = map(int, message.properties.CorrelationData.split())  # type: ignore[union-attr]
        else:
            first, count = map(int, message.topic.rpartition("/")[2].split("-"))
        self._came.put(partial(self._note_told, RECEIPT, first, count, json.loads(message.payload)))

    def _posted(self, first: int, message: Message, answer: dict[str, Any]) -> None:
        self._came.put(partial(self._note_told, ANSWERED, first, len(message.items), answer))

    def _note_told(self, how: bytes, first: int, count: int, receipt: dict[str, Any]) -> None:
        self._unanswered.pop(first, None)
        self._posting.discard(first)
        self._ledger.told(how, first, count, receipt)


def properties(packet: int, **values: Any) -> Properties:
    """MQTT 5 properties as paho takes them."""
    made = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--api", required=True, help="the URL of POST /v1/ingest; the key is in FLEET_API_KEY")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--mqtt", required=True, help="its version")
    parser.add_argument("--receipts", required=True, choices=["yes", "no"], help="whether devices get receipts")
    options = parser.parse_args()
    ledger = LedgerWriter(options.ledger, {"created": datetime.now(UTC).isoformat()}, fsync=True)
    publisher = Publisher(
        options.url,
        options.api,
        os.environ["FLEET_API_KEY"],
        ledger,
        Workload(options.seed),
        options.mqtt,
        receipts=options.receipts == "yes",
    )
    say = partial(print, flush=True)
    say("ready")
    for line in sys.stdin:
        command, cycle, *numbers = line.split()
        if command == "publish":
            publisher.publish(int(cycle), int(numbers[0]), float(numbers[1]))
            say(f"published {cycle}")
        else:
            publisher.drain(int(cycle))
            say(f"drained {cycle}")
    publisher.close()


if __name__ == "__main__":
    main()
