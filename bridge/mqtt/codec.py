"""A stream decoder on the `mqtt5` codec, and the names of the codec that other packages use.

Other packages import these names from here, because the API of the codec may change with a minor version.
"""

from collections.abc import Iterable
from typing import NamedTuple

import mqtt5
from mqtt5 import ConnAckPacket as ConnAckPacket
from mqtt5 import ConnAckReasonCode as ConnAckReasonCode
from mqtt5 import ConnectPacket as ConnectPacket
from mqtt5 import PubAckPacket as PubAckPacket
from mqtt5 import PubAckReasonCode as PubAckReasonCode
from mqtt5 import PublishPacket as PublishPacket
from mqtt5 import QoS as QoS
from mqtt5 import SubAckPacket as SubAckPacket
from mqtt5 import TopicFilter as TopicFilter

_FIRST_FAILURE = 0x80  # of every reason code (section 2.4)
_PUBLISH, _QOS = 0x30, 0x06
_LARGE = 8  # the least second byte of the Remaining Length of 1 KiB; in a shorter packet the third byte is smaller
_MOST_PROPERTY_BYTES = 2_048
"""A PUBLISH with more properties is read without them: the codec takes 26 ms for 50,000 that are empty."""


class Malformed(NamedTuple):
    """Bytes that are not an MQTT 5 packet. The begin of the next packet is unknown, so the connection must end."""

    reason: str


class Decoder:
    """Splits a byte stream into packets, independent of how the network divides it."""

    def __init__(self) -> None:
        self._rest = b""
        self._malformed = False

    def feed(self, data: bytes) -> list[mqtt5.Packet | Malformed]:
        """Return the packets that `data` completes, in order; after a `Malformed` none."""
        packets: list[mqtt5.Packet | Malformed] = []
        if self._malformed:
            return packets
        received = self._rest + data if self._rest else data
        view, read = memoryview(received), mqtt5.read
        offset, end = 0, len(received)
        try:
            while offset < end:
                is_large = offset < end - 2 and received[offset + 2] >= _LARGE
                packet, length = _read_large(view[offset:]) if is_large else read(view[offset:])
                packets.append(packet)
                offset += length
        except IndexError:
            pass  # the rest of this packet has not arrived yet
        except BaseException as error:
            packets.append(_malformed(error))
            self._malformed = True
        self._rest = bytes(view[offset:])
        return packets


def _read_large(view: memoryview) -> tuple[mqtt5.Packet, int]:
    """As `mqtt5.read`, without the properties of a PUBLISH (section 3.3.2.3) if they are too many to be of use."""
    if view[0] & 0xF0 != _PUBLISH:
        return mqtt5.read(view)
    length, start = _integer(view, 1)
    end = start + length
    if end > len(view):
        raise IndexError
    topic_bytes = int.from_bytes(view[start : start + 2], "big")
    header_end = start + 2 + topic_bytes + (2 if view[0] & _QOS else 0)
    property_bytes, first = _integer(view, header_end)
    payload = first + property_bytes
    if property_bytes <= _MOST_PROPERTY_BYTES or payload > end:
        return mqtt5.read(view)
    kept = b"".join((view[start:header_end], b"\0", view[payload:end]))
    packet, _ = mqtt5.read(memoryview(bytes(view[:1]) + _as_integer(len(kept)) + kept))
    return packet, end


def _integer(view: memoryview, at: int) -> tuple[int, int]:
    """A Variable Byte Integer (section 1.5.5) and the position after it. Raises `IndexError`, `ValueError`."""
    value = 0
    for n in range(4):
        byte = view[at + n]
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            return value, at + n + 1
    raise ValueError("a Variable Byte Integer has more than four bytes")


def _as_integer(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _malformed(error: BaseException) -> Malformed:
    """Why the codec refused bytes: `ValueError`, or a panic of its Rust code for text that is not UTF-8."""
    if isinstance(error, ValueError) or type(error).__name__ == "PanicException":
        return Malformed(str(error))
    raise error


def refused(codes: Iterable[mqtt5.SubAckReasonCode]) -> list[str]:
    """The names of the reason codes of a SUBACK that refuse a subscription (section 3.9.3)."""
    return [code.name for code in codes if code.value >= _FIRST_FAILURE]
