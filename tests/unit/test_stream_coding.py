"""The content coding of live streams: what is shared is decoded by a client that knows nothing of it."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.negotiation import accepts_coding
from api.stream.coding import Chunk, Deflate

SHARED = [Chunk(text) for text in (b"", b": heartbeat\n\n", b'data: {"vehicles":[]}\n\n' * 40, bytes(range(256)) * 300)]


@given(st.lists(st.sampled_from(SHARED) | st.binary(max_size=400).map(Chunk), max_size=12))
def test_each_chunk_is_decoded_as_soon_as_it_is_sent(chunks: list[Chunk]) -> None:
    stream, decoder = Deflate(), zlib.decompressobj()
    assert decoder.decompress(stream.begin()) == b""
    for chunk in chunks:
        assert decoder.decompress(stream.add(stream.of(chunk))) == chunk.plain.body
    assert not decoder.eof
    decoder.decompress(stream.end())  # raises where the checksum differs
    assert decoder.eof
    assert decoder.unused_data == b""


def test_wrong_checksum_is_found() -> None:
    stream, decoder = Deflate(), zlib.decompressobj()
    decoder.decompress(stream.begin() + stream.add(stream.of(SHARED[1])))
    stream.add(stream.of(SHARED[2]))  # never sent
    with pytest.raises(zlib.error):
        decoder.decompress(stream.end())


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip, deflate, br, zstd", True),
        ("Deflate", True),
        ("deflate;q=0.5", True),
        ("*", True),
        ("*, deflate;q=0", False),
        ("deflate;q=0", False),
        ("deflate;q=nonsense", False),
        ("gzip", False),
        ("xdeflate", False),
        ("", False),
    ],
)
def test_coding_is_used_where_the_client_accepts_it(header: str, accepted: bool) -> None:
    assert accepts_coding(header, "deflate") is accepted
