"""The fleet, in a process of its own: it publishes, and writes down what it is promised.

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
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.acceptance.chaos.http_door import HttpDoor
from tests.acceptance.chaos.ledger import Ledger
from tests.acceptance.chaos.workload import Message, Workload

_ANSWER_AGAIN_S = 0.5
"""After this long without a receipt the same is sent again, and then each time after twice as long."""
_BURST_S = 0.02


class Publisher:
    """Sends through both doors and keeps the ledger. The clients' threads only leave word of what came."""

    def __init__(self, url: str, api_url: str, api_key: str, ledger: Ledger, workload: Workload) -> None:
        self._ledger = ledger
        self._workload = workload
        self._flying: dict[int, Message] = {}
        self._refused: list[Message] = []
        self._unanswered: dict[int, Message] = {}
        self._posting: set[int] = set()
        self._came: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._http = HttpDoor(api_url, api_key, self._posted, self._not_posted)
        parts = urlsplit(url)
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="chaos-publisher", protocol=MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(parts.username, parts.password)
        client.reconnect_delay_set(1, 1)
        client.max_inflight_messages_set(500)
        client.on_connect = self._connected
        client.on_publish = self._acknowledged
        client.on_message = self._answered
        session = properties(PacketTypes.CONNECT, SessionExpiryInterval=3600)
        client.connect(parts.hostname or "", parts.port or 1883, keepalive=5, clean_start=False, properties=session)
        client.loop_start()

    def publish(self, cycle: int, count: int, rate: float) -> None:
        """`count` messages in bursts, at `rate` a second."""
        messages = self._workload.messages(cycle, count)
        burst = max(1, round(rate * _BURST_S))
        due = time.monotonic()
        while gathered := list(itertools.islice(messages, burst)):
            for message in gathered:
                for door in message.doors:
                    self._ledger.sent(message, door)
            self._ledger.sync()
            for message in gathered:
                if "mqtt" in message.doors:
                    self._send(message)
                if "http" in message.doors:
                    self._posting.add(message.n)
                    self._http.send(message)
            due += burst / rate
            self._collect(due)

    def drain(self, cycle: int) -> None:
        """Return when all is acknowledged, every receipt is here, and so is that of a last message behind them."""
        self._settle()
        sentinel = self._workload.sentinel(cycle)
        self._ledger.sent(sentinel, "mqtt")
        self._ledger.sync()
        self._send(sentinel)
        self._settle()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._ledger.sync()

    def _settle(self) -> None:
        patience_s = _ANSWER_AGAIN_S
        ask_at = time.monotonic() + patience_s
        while self._flying or self._refused or self._unanswered or self._posting:
            self._collect(time.monotonic() + 0.02)
            again, self._refused = self._refused, []
            if time.monotonic() > ask_at and not self._flying:
                again += self._unanswered.values()
                patience_s *= 2
                ask_at = time.monotonic() + patience_s
            for message in again:
                self._send(message)
        self._ledger.sync()

    def _collect(self, until: float) -> None:
        """Write down what comes until then."""
        while True:
            try:
                self._came.get(timeout=max(0.0, until - time.monotonic()))()
            except queue.Empty:
                return

    def _send(self, message: Message) -> None:
        asks = None
        if message.wants_receipt:
            self._unanswered[message.n] = message
            topic = message.topic.replace("telemetry", "receipt")
            asks = properties(PacketTypes.PUBLISH, ResponseTopic=topic, CorrelationData=str(message.n).encode())
        sent = self._client.publish(message.topic, message.payload, qos=1, properties=asks)
        self._flying[sent.mid] = message

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([("fleet/vehicle/+/receipt", 1), ("fleet/meter/+/receipt", 1)])

    def _acknowledged(self, _client: paho.Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        self._came.put(partial(self._note_puback, mid, reason.value, time.monotonic()))

    def _note_puback(self, mid: int, reason: int, at: float) -> None:
        message = self._flying.pop(mid)
        if reason == 0:
            self._ledger.puback(message.n, at)
        else:  # 0x10: nobody has subscribed, so the broker has not kept it
            self._ledger.indeterminate(message.n, "mqtt", f"PUBACK {reason}")
            self._refused.append(message)

    def _answered(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        n = int(message.properties.CorrelationData)  # type: ignore[union-attr]
        self._came.put(partial(self._note_answer, n, json.loads(message.payload)))

    def _note_answer(self, n: int, answer: dict[str, Any]) -> None:
        self._unanswered.pop(n, None)
        self._ledger.answer(n, "mqtt", answer)

    def _posted(self, message: Message, answer: dict[str, Any]) -> None:
        self._came.put(partial(self._note_posted, message.n, answer))

    def _note_posted(self, n: int, answer: dict[str, Any]) -> None:
        self._posting.discard(n)
        self._ledger.answer(n, "http", answer)

    def _not_posted(self, message: Message, why: str) -> None:
        self._came.put(partial(self._ledger.indeterminate, message.n, "http", why))


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
    options = parser.parse_args()
    publisher = Publisher(
        options.url, options.api, os.environ["FLEET_API_KEY"], Ledger(options.ledger), Workload(options.seed)
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
