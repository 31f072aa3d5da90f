"""One connection's reading from the consumer: requests, messages, acknowledgements, in the order of the stream.

An acknowledgement covers its message and all before it. It is safe because messages are offered in the order of the
stream without a gap (`Order`), settled in the order in which they were offered, and acknowledged only on the connection
on which they arrived. A connection that fails in any way is closed, and the next one begins behind the last
acknowledgement.
"""

import asyncio
import json
import time
from functools import partial
from typing import TYPE_CHECKING

from bridge.delivery import Item, Receipt, Settlement, delivery
from bridge.errors import ClocksDiffer, StoreUnavailable
from bridge.formats import decode_message
from bridge.formats.port import AcceptedTimes
from bridge.settings.jetstream import JetStreamSettings
from bridge.sources.jetstream_metrics import JetStreamMetrics
from bridge.sources.jetstream_order import Order, OutOfOrder
from bridge.sources.notices import Notices
from bridge.sources.port import Intake
from bridge.streams.jetstream_client import Client
from bridge.streams.jetstream_partitions import Share
from bridge.streams.jetstream_subjects import TOPIC, place_of, subject_of, topic_named, unquoted

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_MOST_ITEMS = 1_000  # approximate maximum of one delivery: much smaller than a batch, much larger than a message
_HEARTBEAT_S = 2.0
_EXPIRES_S = 10.0
_NANOSECONDS = 10**9
_ACK = b"+ACK"


class Arrival:
    """Messages that arrived together. `items` is flat; only messages that ask for a receipt have a range of it."""

    __slots__ = ("items", "last", "messages", "requests", "size_bytes", "times")

    def __init__(self, times: AcceptedTimes) -> None:
        self.times = times
        self.items: list[Item] = []
        self.messages = 0
        self.size_bytes = 0
        self.requests: list[tuple[str, int, int]] = []
        """The receipt's subject, and the range of the message's items."""
        self.last = ""
        """The reply subject of the last message, by which it is acknowledged."""


class Reading:
    """The requests to the consumer, and what arrives, on one connection."""

    def __init__(
        self, client: Client, settings: JetStreamSettings, share: Share, intake: Intake, metrics: JetStreamMetrics
    ) -> None:
        self._client = client
        self._share = share
        self._settings = settings
        self._window = settings.accepted_window
        self._intake = intake
        self._metrics = metrics
        self._order = Order()
        self._arrival: Arrival | None = None
        self._subscription: Subscription | None = None
        self._wake = asyncio.Event()
        self._to_ack: str | None = None
        self._notices = Notices()
        self._receipts: list[tuple[str, bytes]] = []
        self._heard_at = time.monotonic()
        self._stopping = False
        self.failed: str | None = None
        """Why this connection is to be closed; from then on nothing is offered or acknowledged."""

    async def run(self) -> str:
        """Request messages and acknowledge settled ones until the connection fails. Returns the reason.

        Raises `NatsUnavailable`.
        """
        self._subscription = await self._client.subscribe(self._received)
        lost = asyncio.create_task(self._client.closed.wait())
        lost.add_done_callback(lambda _: self.fail("connection lost"))
        try:
            while self.failed is None:
                await self._answer()
                await self._request()
                await self._wait()
                self._watch()
        finally:
            lost.cancel()
        return self.failed

    def wake(self) -> None:
        """Look again whether there is something to request or to acknowledge."""
        self._wake.set()

    def stop(self) -> None:
        """Request nothing more and offer nothing more."""
        self._stopping = True
        self.wake()

    def fail(self, reason: str) -> None:
        """Give the connection up."""
        if self.failed is None:
            self.failed = reason
            self.wake()

    async def finish(self) -> None:
        """Acknowledge what has been settled. Raises `NatsUnavailable`."""
        if self.failed is None:
            await self._answer()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_HEARTBEAT_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _watch(self) -> None:
        """Fail when the server is silent, or when messages wait without a commit for too long."""
        if self._order.awaited <= 0:
            self._heard_at = time.monotonic()
        silent_s = time.monotonic() - self._heard_at
        if silent_s > 3 * _HEARTBEAT_S:
            self.fail(f"nothing received for {silent_s:.0f} s")
        if self._intake.stalled_s > self._settings.stall_timeout_s and not self._intake.retrying:
            self.fail(f"no commit for {self._intake.stalled_s:.0f} s")

    # -- requests and acknowledgements

    async def _request(self) -> None:
        """Ask for messages while there is room for them and half of the window is free."""
        size = self._share.window - max(self._order.awaited, 0)
        if self._stopping or self.failed or self._intake.full or size < (self._share.window + 1) // 2:
            return
        request = {
            "batch": size,
            "max_bytes": self._share.most_bytes,
            "expires": int(_EXPIRES_S * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT_S * _NANOSECONDS),
        }
        assert self._subscription is not None
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._settings.nats_stream}.{self._share.consumer}"
        self._order.awaited += size
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._subscription.subject)

    async def _answer(self) -> None:
        """Acknowledge all that has been settled, then publish the receipts."""
        if (reply := self._to_ack) is not None:
            self._to_ack = None
            await self._client.publish(reply, _ACK)
        receipts, self._receipts = self._receipts, []
        for subject, receipt in receipts:
            await self._client.publish(subject, receipt)
            self._metrics.receipts.inc()

    # -- messages

    async def _received(self, message: "Msg") -> None:
        if self.failed is not None:
            return
        self._heard_at = time.monotonic()
        try:
            if message.reply:
                self._message(message)
            else:
                self._status(message)
        except ClocksDiffer as error:
            self.fail(str(error))
        except OutOfOrder as error:
            self._metrics.out_of_order.inc()
            self.fail(str(error))

    def _message(self, message: "Msg") -> None:
        self._order.arrived(message.reply)
        if self._stopping:
            return  # not acknowledged, so the stream sends it again
        if self._arrival is None:
            self._arrival = Arrival(self._window.at(self._intake.now()))
        arrival = self._arrival
        topic, receipt = place_of(message.subject)
        content_type = None
        if headers := message.headers:
            content_type = unquoted(headers.get("Content-Type", "")) or None
            if TOPIC in headers:
                topic = topic_named(message.subject, headers[TOPIC])
        items = decode_message(topic, message.data, arrival.times, content_type)
        if receipt is not None:
            start = len(arrival.items)
            arrival.requests.append((receipt, start, start + len(items)))
        arrival.items += items
        arrival.messages += 1
        arrival.size_bytes += len(message.data)
        arrival.last = message.reply
        assert self._subscription is not None
        if len(arrival.items) >= _MOST_ITEMS or not self._subscription.pending_msgs:
            self._hand_over(arrival)

    def _hand_over(self, arrival: Arrival) -> None:
        """Offer the messages so far as a delivery."""
        self._arrival = None
        self._metrics.messages.inc(arrival.messages)
        self._intake.offer(delivery(arrival.items, partial(self._settle, arrival), arrival.size_bytes))
        self.wake()

    def _status(self, message: "Msg") -> None:
        """A heartbeat, the end of a request, or an error of the consumer."""
        headers = message.headers or {}
        status = headers.get("Status", "")
        if self._arrival is not None:  # a status that arrived with messages
            self._hand_over(self._arrival)
        if status == "100":
            self._order.idle(headers)
        elif not self._order.ended(headers):
            self.fail(f"the consumer answered {status} {headers.get('Description', 'no responders')}")
        self.wake()

    def _settle(self, arrival: Arrival, settlement: Settlement) -> None:
        """After the commit, acknowledge the messages and answer requests for receipts."""
        if isinstance(settlement, StoreUnavailable):
            self.fail("not stored")  # so that the stream sends the messages again
        elif self.failed is not None:
            self._metrics.stale_acks.inc(arrival.messages)
        else:
            self._to_ack = arrival.last
            self._metrics.acks.inc(arrival.messages)
            for subject, start, stop in arrival.requests:
                self._receipts.append((subject, Receipt.of(settlement[start:stop]).encode()))
            answered = (range(start, stop) for _, start, stop in arrival.requests)
            for topic, notice in self._notices.of(settlement, answered, time.monotonic()):
                self._receipts.append((subject_of(topic), notice))
            self.wake()
