"""A proxy in a thread of its own, so that a harness that blocks does not hold up the bytes."""

import asyncio
import threading
import time
from collections.abc import Callable

from tests.proxy import Direction, Mode, Proxy
from tests.proxy import Link as Pair


class Link:
    """The way from a client to a server, and what can happen to it. `heal` ends every fault."""

    def __init__(self, target_port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = Proxy("127.0.0.1", target_port)
        self._lossy = False
        asyncio.run_coroutine_threadsafe(self._proxy.start(), self._loop).result(10)
        self._pass_on = self._proxy.watch
        self.port = self._proxy.port

    def close(self) -> None:
        """Cut everything and end the thread."""
        asyncio.run_coroutine_threadsafe(self._proxy.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._call(self._proxy.cut)

    def stall(self) -> None:
        """Hold all bytes back, as a partition does that TCP survives."""
        self._set("stall")

    def swallow(self) -> None:
        """Accept and take everything, answer nothing."""
        self._lossy = True
        self._set("swallow")

    def delay(self, pause_s: float) -> None:
        """Hold each piece back this long."""
        self._watch(lambda *_: time.sleep(pause_s))

    def cut_answer_to(self, words: bytes) -> None:
        """Pass the next request that contains `words` on, and cut its connection when the answer comes."""
        asked: set[int] = set()

        def watch(pair: Pair, direction: Direction, data: bytes) -> None:
            if direction == "up" and words in data and not asked:
                asked.add(pair.number)
            elif direction == "down" and pair.number in asked:
                pair.cut()

        self._watch(watch)

    def heal(self) -> None:
        """Pass everything on again; connections that have lost bytes are cut, as nothing could mend them."""
        self._watch(self._pass_on)
        if self._lossy:
            self._lossy = False
            self.cut()
        self._set("pass")

    def _watch(self, watch: Callable[[Pair, Direction, bytes], None]) -> None:
        def act() -> None:
            self._proxy.watch = watch

        self._call(act)

    def _set(self, mode: Mode) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.set(mode), self._loop).result(10)

    def _call(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)
