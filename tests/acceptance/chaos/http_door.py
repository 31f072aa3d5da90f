"""The fleet's other door: POSTs that are repeated until an answer is certain."""

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

Certain = Callable[[Message, dict[str, Any]], None]
Uncertain = Callable[[Message, str], None]


class HttpDoor:
    """Sends each message until it is answered with 201, 207 or 422; the newest first, unlike MQTT.

    The workers call `certain` and `uncertain` from threads of their own.
    """

    def __init__(self, url: str, key: str, certain: Certain, uncertain: Uncertain) -> None:
        self._url, self._key = url, key
        self._certain, self._uncertain = certain, uncertain
        self._waiting: queue.LifoQueue[Message] = queue.LifoQueue()
        for _ in range(_WORKERS):
            threading.Thread(target=self._work, daemon=True).start()

    def send(self, message: Message) -> None:
        self._waiting.put(message)

    def _work(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        with httpx.Client(headers=headers, timeout=3) as client:
            while True:
                message = self._waiting.get()
                while not self._posted(client, message):
                    time.sleep(_PAUSE_S)

    def _posted(self, client: httpx.Client, message: Message) -> bool:
        try:
            response = client.post(self._url, content=message.payload)
        except httpx.TransportError as error:
            self._uncertain(message, repr(error))
            return False
        if response.status_code not in _CERTAIN:
            self._uncertain(message, f"{response.status_code} {response.text[:200]}")
            return False
        self._certain(message, json.loads(response.content))
        return True
