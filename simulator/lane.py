"""A lane carries the messages of its devices in the order in which they are offered."""

import asyncio
from collections import deque
from typing import Protocol

from simulator.message import Message


class Lane(Protocol):
    """The interface of the MQTT and the HTTP lane."""

    @property
    def idle(self) -> bool:
        """Whether all offered messages are acknowledged."""
        ...

    @property
    def awaits_receipts(self) -> bool:
        """Number of requested receipts that have not arrived; they are sent with QoS 0 and may be lost."""
        ...

    def offer(self, message: Message) -> None:
        """Queue a message."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether so many messages wait that the caller should await `room`."""
        ...

    async def room(self) -> None:
        """Wait until the queue has room."""
        ...

    async def run(self) -> None:
        """Send messages until cancelled."""
        ...


class Waiting:
    """The messages that a lane has not sent yet; bounded because callers await `room`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._messages: deque[Message] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._some.set()
        if len(self._messages) >= self._most:
            self._room.clear()

    def take(self) -> Message:
        message = self._messages.popleft()
        if len(self._messages) <= self._most // 2:
            self._room.set()
        if not self._messages:
            self._some.clear()
        return message

    @property
    def is_full(self) -> bool:
        return not self._room.is_set()

    async def room(self) -> None:
        await self._room.wait()

    async def some(self) -> None:
        """Wait until there is a message."""
        await self._some.wait()
