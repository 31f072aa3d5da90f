"""Messages of an MQTT broker as they arrive, each acknowledged when its receiver says so.

Nothing is decoded. A mistaken topic is corrected: the stream has a device's messages under its own topic, in order.

The session is durable, as that of `mqtt`. PUBACKs are sent in the order of receipt.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import mqtt5
import structlog

from bridge.backoff import Backoff
from bridge.mqtt.codec import refused
from bridge.mqtt.session import Event, Messages, Session
from bridge.mqtt.transport import ConnectionLost, Transport
from bridge.mqtt.url import broker_of
from bridge.settings.relay import RelaySettings
from bridge.sources.mqtt import READINGS, TELEMETRY
from bridge.sources.mqtt_mistakes import Mistakes
from bridge.streams.port import Done, Message

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_ANSWER_TIMEOUT_S = 10.0
_KEEP_ALIVE_S = 30
_MOST_BYTES = 32 << 20  # of messages that wait to be acknowledged, at which nothing more is read


class Receiver(Protocol):
    """Gets the messages in the order of receipt."""

    def publish(self, message: Message, done: Done) -> None:
        """Make it durable, and call `done` then, or with the reason why it is not."""
        ...


class _Sent:
    """A message that waits to be acknowledged."""

    __slots__ = ("done", "number", "size_bytes")

    def __init__(self, number: int, size_bytes: int) -> None:
        self.number, self.size_bytes, self.done = number, size_bytes, False


class RawMqtt:
    """Keeps one connection to the broker."""

    def __init__(
        self, settings: RelaySettings, receiver: Receiver, mistakes: Mistakes, acknowledged: Callable[[int], None]
    ) -> None:
        """`acknowledged` is told of the number of PUBACKs sent."""
        self._mistakes = mistakes
        self._receiver, self._acknowledged = receiver, acknowledged
        self._broker = broker_of(
            settings.relay_mqtt_url, lambda: ssl.create_default_context(cafile=settings.mqtt_ca_file)
        )
        self._session = Session(
            mqtt5.ConnectPacket(
                f"fleet-relay-{settings.relay_name}",
                username=self._broker.username,
                password=self._broker.password,
                clean_start=False,
                session_expiry_interval=settings.relay_session_expiry_s,
                receive_max=settings.relay_receive_maximum,
                keep_alive=_KEEP_ALIVE_S,
            )
        )
        self._transport: Transport | None = None
        self._waiting: deque[_Sent] = deque()
        self._waiting_bytes = 0
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._stopping = False
        self.connected = False

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self._waiting)

    async def run(self) -> None:
        """Connect, and reconnect with back-off and jitter, until cancelled."""
        while not self._stopping:
            try:
                transport = await self._connect()
                reason = await transport.closed
            except (ConnectionLost, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            self.connected = False
            if not self._stopping:
                pause_s = self._backoff.next()
                log.warning("not connected to the broker", reason=reason, again_in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s)

    async def _connect(self) -> Transport:
        self._waiting.clear()  # they are redelivered
        self._waiting_bytes = 0
        self._transport = transport = Transport(self._session, self._received, gathers=True)
        await transport.open(self._broker, _ANSWER_TIMEOUT_S)
        try:
            suback = await transport.subscribe(READINGS)
            if names := refused(suback.reason_codes[: len(TELEMETRY)]):
                raise ConnectionLost(f"the broker refused the subscription: {', '.join(names)}")
        except BaseException:
            transport.abort("session not opened")
            raise
        self.connected = True
        log.info("subscribed", broker=self._broker.host, port=self._broker.port)
        return transport

    def _received(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Messages):
                self._messages(event)

    def _messages(self, messages: Messages) -> None:
        if self._stopping:
            return  # never acknowledged, so the broker redelivers them
        for number, packet in enumerate(messages.packets, messages.first):
            message = Message(
                self._mistakes.corrected(packet.topic),
                packet.payload,
                packet.content_type,
                packet.response_topic,
                packet.correlation_data,
            )
            sent = _Sent(number, len(message.payload))
            self._waiting.append(sent)
            self._waiting_bytes += sent.size_bytes
            self._receiver.publish(message, partial(self._done, sent))
            if self._session.is_stale(number):
                return  # refused at once: what follows is redelivered behind it
        if self._waiting_bytes >= _MOST_BYTES and self._transport is not None:
            self._transport.pause()

    def _done(self, sent: _Sent, problem: str | None) -> None:
        if self._session.is_stale(sent.number):
            return
        if problem is not None:
            self.acknowledge()
            self._abort(problem)  # so that the broker sends the message again
        else:
            sent.done = True

    def acknowledge(self) -> None:
        """Send the PUBACKs of what is durable, up to the first message that is not."""
        if not (self._waiting and self._waiting[0].done):
            return
        first, count = self._waiting[0].number, 0
        while self._waiting and self._waiting[0].done:
            self._waiting_bytes -= self._waiting.popleft().size_bytes
            count += 1
        if sent := self._session.settle(first, count):
            self._backoff.reset()  # not before: a stream that refuses everything would be asked without a pause
            self._acknowledged(sent)
        if self._transport is not None:
            self._transport.flush()
            if self._waiting_bytes < _MOST_BYTES and not self._stopping:
                self._transport.resume()

    def _abort(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort(reason)

    def stop_reading(self) -> None:
        """Accept no further messages. Accepted ones are still acknowledged."""
        self._stopping = True
        if self._transport is not None:
            self._transport.pause()

    async def close(self) -> None:
        """Send DISCONNECT; the broker keeps the session."""
        if self._transport is not None and not self._transport.closed.done():
            self._session.disconnect()
            self._transport.flush()
            self._transport.resume()
            await asyncio.wait({self._transport.closed}, timeout=_ANSWER_TIMEOUT_S)
            self._transport.abort("the broker did not close the connection")
