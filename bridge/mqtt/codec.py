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
        view = memoryview(self._rest + data if self._rest else data)
        offset, end = 0, len(view)
        try:
            while offset < end:
                packet, length = mqtt5.read(view[offset:])
                packets.append(packet)
                offset += length
        except IndexError:
            pass  # the rest of this packet has not arrived yet
        except BaseException as error:
            packets.append(_malformed(error))
            self._malformed = True
        self._rest = bytes(view[offset:])
        return packets


def _malformed(error: BaseException) -> Malformed:
    """Why the codec refused bytes: `ValueError`, or a panic of its Rust code for text that is not UTF-8."""
    if isinstance(error, ValueError) or type(error).__name__ == "PanicException":
        return Malformed(str(error))
    raise error


def refused(codes: Iterable[mqtt5.SubAckReasonCode]) -> list[str]:
    """The names of the reason codes of a SUBACK that refuse a subscription (section 3.9.3)."""
    return [code.name for code in codes if code.value >= _FIRST_FAILURE]
