"""Messages that wait to be decoded, in turns between devices. Pure.

The broker sends the messages of all devices in one stream. A message that takes long to decode waits here while the
messages after it are decoded and stored, and a device with many of them waits for its own.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """One queue for each device; the devices take turns."""

    def __init__(self) -> None:
        self.size_bytes = 0
        """The size of all messages that wait."""
        self._queues: dict[str, deque[tuple[T, int]]] = {}
        self._bytes_of: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, device: str, message: T, size_bytes: int) -> None:
        """Let a message wait behind the earlier ones of its device."""
        self._queues.setdefault(device, deque()).append((message, size_bytes))
        self.size_bytes += size_bytes
        self._bytes_of[device] = self.bytes_of(device) + size_bytes

    def bytes_of(self, device: str) -> int:
        """The size of the device's messages that wait."""
        return self._bytes_of.get(device, 0)

    def take(self) -> T:
        """Remove and return the oldest message of the device whose turn it is. Raises `StopIteration` if none waits."""
        device = next(iter(self._queues))
        queue = self._queues.pop(device)
        message, size_bytes = queue.popleft()
        if queue:
            self._queues[device] = queue  # behind the other devices
            self._bytes_of[device] -= size_bytes
        else:
            del self._bytes_of[device]
        self.size_bytes -= size_bytes
        return message

    def clear(self) -> None:
        """Forget all messages."""
        self._queues.clear()
        self._bytes_of.clear()
        self.size_bytes = 0
