"""Publishes messages to a JetStream stream, each acknowledged when a majority of the stream's replicas has it.

Messages are sent on one connection, so the stream gets them in order; many are underway at a time. Each has an id made
from all that it carries, so the stream stores the same message only once, also if two publishers send it within the
stream's duplicate window. When one is refused, nothing is sent behind it on this connection.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING

from bridge.errors import Misconfigured
from bridge.settings.jetstream import NatsStreamSettings
from bridge.streams.jetstream_client import Client, require
from bridge.streams.jetstream_setup import set_up
from bridge.streams.jetstream_subjects import MQTT_STREAM, TOPIC, place_of, quoted, subject_of
from bridge.streams.port import Done, Message, StreamKind, StreamUnavailable
from bridge.url import split_nats

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_MOST_UNDERWAY = 2_000
_MOST_WAITING_BYTES = 64 << 20
_ANSWER_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 1.0


class JetStreamTarget:
    """See `port.Stream`."""

    def __init__(self, settings: NatsStreamSettings) -> None:
        require()
        if settings.nats_stream == MQTT_STREAM:
            raise Misconfigured(
                f"FLEET_NATS_STREAM: {MQTT_STREAM} is filled by the cluster's own MQTT listener; name another stream, "
                "such as FLEET"
            )
        self._settings = settings
        self._servers = split_nats(settings.nats_url)
        self._client: Client | None = None
        self._inbox = ""
        self._to_send: deque[tuple[Message, Done]] = deque()
        self._underway: dict[str, tuple[Done, float, int]] = {}
        """By the number of a message: its function, when it was sent, and its bytes."""
        self._sent = self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._failed: str | None = None

    async def open(self) -> None:
        """See `port.Stream`. The consumers exist before the first message, which would be discarded without them."""
        is_tls = self._servers[0].startswith("tls:")
        tls = ssl.create_default_context(cafile=self._settings.nats_ca_file) if is_tls else None
        self._client = client = await Client.connect(self._servers, "fleet-publisher", tls)
        await set_up(client, self._settings)
        subscription = await client.subscribe(self._answered, ".*")
        self._inbox = subscription.subject.removesuffix("*")
        self._failed = None

    def publish(self, message: Message, done: Done) -> None:
        """See `port.Stream`."""
        if self._failed is not None:
            raise StreamUnavailable(self._failed)
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            raise StreamUnavailable("too many messages wait for the stream")
        self._waiting_bytes += len(message.payload)
        self._to_send.append((message, done))
        self._wake.set()

    async def serve(self) -> str:
        """See `port.Stream`."""
        assert self._client is not None
        lost = asyncio.create_task(self._client.closed.wait())
        lost.add_done_callback(lambda _: self._fail("connection lost"))
        try:
            while self._failed is None:
                await self._send(self._client)
                await self._wait()
        finally:
            lost.cancel()
        return self._failed

    async def _send(self, client: Client) -> None:
        while self._to_send and self._failed is None and len(self._underway) < _MOST_UNDERWAY:
            message, done = self._to_send.popleft()
            self._sent += 1
            number = str(self._sent)
            self._underway[number] = done, time.monotonic(), len(message.payload)
            await client.publish(
                subject_of(message.topic), message.payload, reply=self._inbox + number, headers=headers_of(message)
            )

    async def _wait(self) -> None:
        """Wait for something to send or for an answer; fail when the oldest message has none for too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._wake.wait()
        self._wake.clear()
        oldest = next(iter(self._underway.values()), None)
        if oldest is not None and time.monotonic() - oldest[1] > _ANSWER_TIMEOUT_S:
            self._fail(f"no answer within {_ANSWER_TIMEOUT_S:.0f} s")

    async def _answered(self, answer: "Msg") -> None:
        found = self._underway.pop(answer.subject.rpartition(".")[2], None)
        if found is None:
            return  # given up already
        done, _, size_bytes = found
        self._waiting_bytes -= size_bytes
        problem = problem_in(answer.data, answer.headers)
        if problem is not None:
            self._fail(problem)
        done(problem)
        self._wake.set()

    def _fail(self, reason: str) -> None:
        """Send nothing more on this connection."""
        if self._failed is None:
            self._failed = reason
            self._wake.set()

    async def close(self) -> None:
        """See `port.Stream`."""
        self._fail("closed")
        if self._client is not None:
            await self._client.abort()
        given_up = [done for done, _, _ in self._underway.values()] + [done for _, done in self._to_send]
        self._underway.clear()
        self._to_send.clear()
        self._waiting_bytes = 0
        for done in given_up:
            done(self._failed)


def headers_of(message: Message) -> dict[str, str]:
    """The id of a message, and what it carries besides its payload."""
    headers = {"Nats-Msg-Id": id_of(message)}
    if place_of(subject_of(message.topic)).topic != message.topic:
        headers[TOPIC] = quoted(message.topic)
    if message.content_type is not None:
        headers["Content-Type"] = quoted(message.content_type)
    if message.response_topic is not None:
        headers["Response-Topic"] = quoted(message.response_topic)
    if message.correlation is not None:
        headers["Correlation-Data"] = base64.b64encode(message.correlation).decode()
    return headers


def id_of(message: Message) -> str:
    """Equal for equal messages, also from different publishers."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (message.topic, message.content_type or "", message.response_topic or ""):
        text = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d " % len(text) + text)
    correlation = message.correlation or b""
    digest.update(b"%d " % len(correlation) + correlation + message.payload)
    return digest.hexdigest()


def problem_in(answer: bytes, headers: "dict[str, str] | None") -> str | None:
    """Why the stream has not stored a message; None if it has, now or before."""
    if headers and (status := headers.get("Status")):
        return "no stream answers" if status == "503" else f"status {status}"
    try:
        fields = json.loads(answer)
    except ValueError:
        return "an answer that is not JSON"
    if "error" in fields:
        return str(fields["error"].get("description", "refused"))
    return None if "seq" in fields else "an answer without a sequence number"


TARGET = StreamKind(NatsStreamSettings, JetStreamTarget)
