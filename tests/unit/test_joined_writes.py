"""What is written is sent in order and as a whole, head and body in one piece."""

import asyncio
from typing import cast

import pytest

from api.joined_writes import JoinedWrites

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Sent:
    """A transport that remembers what was sent, and how it ended."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def get_extra_info(self, name: str) -> None:
        """None of it."""

    def is_closing(self) -> bool:
        return bool(self.calls) and self.calls[-1] in ("close", "abort")

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


async def both() -> tuple[JoinedWrites, Sent]:
    sent = Sent()
    return JoinedWrites(cast(asyncio.Transport, sent)), sent


async def test_head_and_body_are_one_piece() -> None:
    joined, sent = await both()
    joined.write(HEAD)
    joined.write(b"body")
    joined.write(b"more")
    joined.close()
    await asyncio.sleep(0)
    assert sent.calls == [HEAD + b"body", b"more", "close"]


async def test_large_body_is_not_copied() -> None:
    joined, sent = await both()
    large = bytes(100_000)
    joined.write(HEAD)
    joined.write(large)
    assert sent.calls == [HEAD, large]
    assert sent.calls[1] is large


async def test_head_is_sent_at_once_when_nothing_follows() -> None:
    joined, sent = await both()
    joined.write(HEAD)
    await asyncio.sleep(0)
    assert sent.calls == [HEAD]


async def test_head_is_sent_before_the_connection_is_closed() -> None:
    joined, sent = await both()
    joined.write(HEAD)
    joined.close()
    await asyncio.sleep(0)
    assert sent.calls == [HEAD, "close"]


async def test_nothing_is_sent_after_the_connection_was_aborted() -> None:
    joined, sent = await both()
    joined.write(HEAD)
    joined.abort()
    await asyncio.sleep(0)
    assert sent.calls == ["abort"]


async def test_heads_of_pipelined_answers_are_sent_in_order() -> None:
    joined, sent = await both()
    joined.write(HEAD)
    joined.write(HEAD)
    await asyncio.sleep(0)
    assert b"".join(call for call in sent.calls if isinstance(call, bytes)) == HEAD + HEAD
