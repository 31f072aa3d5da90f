"""The fleet over HTTP: POSTs that are repeated until an answer is certain."""

import json
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.acceptance.chaos.workload import Message

_WORKERS = 4
_PAUSE_S = 0.2
_CERTAIN = (201, 207, 422)

Answered = Callable[[int, Message, dict[str, Any]], None]


class HttpClient:
    """Sends each message until it is answered with 201, 207 or 422; the newest first, unlike MQTT.

    The workers call `answered` from threads of their own, with the number of the message's first item.
    """

    def __init__(self, url: str, key: str, answered: Answered) -> None:
        self._url, self._key = url, key
        self._answered = answered
        self._waiting: queue.LifoQueue[tuple[int, Message]] = queue.LifoQueue()
        for _ in range(_WORKERS):
            threading.Thread(target=self._work, daemon=True).start()

    def send(self, first: int, message: Message) -> None:
        self._waiting.put((first, message))

    def _work(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        with httpx.Client(headers=headers, timeout=3) as client:
            while True:
                first, message = self._waiting.get()
                while (answer := self._posted(client, message)) is None:
                    time.sleep(_PAUSE_S)
                self._answered(first, message, answer)

    def _posted(self, client: httpx.Client, message: Message) -> dict[str, Any] | None:
        """The answer; None when nothing is certain."""
        try:
            response = client.post(self._url, content=message.payload)
        except httpx.TransportError:
            return None
        if response.status_code not in _CERTAIN:
            return None
        answer: dict[str, Any] = json.loads(response.content)
        return answer
