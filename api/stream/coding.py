"""The content coding of streams (RFC 9110, section 8.4.1): none, or `deflate` (RFC 1950). Pure.

All viewers are sent the same chunks, so each is compressed once: as blocks that need nothing from before them and end
at a byte. Blocks of different chunks in a row are one deflate stream. What differs between streams is the checksum at
the end; `adler32`, unlike the CRC of gzip, is that of the parts put together by a few additions.
"""

import zlib
from functools import cached_property
from typing import NamedTuple, Protocol

_HEADER = b"\x78\x01"  # a window of 32 KiB, fastest compression
_LAST_BLOCK = b"\x03\x00"
_LEVEL = 1
_ADLER_BASE = 65_521


class Coded(NamedTuple):
    """A chunk as it is sent. It does not keep the chunk, so what waits for a client is as large as it seems."""

    body: bytes
    checksum: int
    """`adler32` of the plain text; 0 where it is not needed."""
    length: int
    """Of the plain text."""


class Chunk:
    """A part of a stream. Its forms are shared by the viewers."""

    def __init__(self, text: bytes) -> None:
        self.plain = Coded(text, 0, len(text))

    @cached_property
    def deflated(self) -> Coded:
        """Blocks of a deflate stream, none of them the last."""
        text = self.plain.body
        packer = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
        blocks = packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)
        return Coded(blocks, zlib.adler32(text), len(text))


class Coding(Protocol):
    """What a stream is sent as. `name` is its content coding; empty for none."""

    name: str

    def of(self, chunk: Chunk) -> Coded:
        """A chunk in this coding."""
        ...

    def begin(self) -> bytes: ...

    def add(self, coded: Coded) -> bytes:
        """The bytes of a chunk, the next one of this stream."""
        ...

    def end(self) -> bytes: ...


class Plain:
    """No coding."""

    name = ""

    def of(self, chunk: Chunk) -> Coded:
        """The chunk as it is."""
        return chunk.plain

    def begin(self) -> bytes:
        """Nothing."""
        return b""

    def add(self, coded: Coded) -> bytes:
        """The chunk."""
        return coded.body

    def end(self) -> bytes:
        """Nothing."""
        return b""


class Deflate:
    """One stream with the coding `deflate`."""

    name = "deflate"

    def __init__(self) -> None:
        self._checksum = zlib.adler32(b"")

    def of(self, chunk: Chunk) -> Coded:
        """The chunk's blocks."""
        return chunk.deflated

    def begin(self) -> bytes:
        """The header."""
        return _HEADER

    def add(self, coded: Coded) -> bytes:
        """The chunk's blocks."""
        self._checksum = _joined(self._checksum, coded.checksum, coded.length)
        return coded.body

    def end(self) -> bytes:
        """The last block and the checksum."""
        return _LAST_BLOCK + self._checksum.to_bytes(4, "big")


def _joined(first: int, second: int, length: int) -> int:
    """The `adler32` of two parts in a row, from those of the parts and the length of the second."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)
    return (high % _ADLER_BASE) << 16 | low % _ADLER_BASE
