"""MQTT packets that pass through a proxy, by connection."""

from collections import defaultdict

from bridge.mqtt.codec import Decoder, PubAckPacket, PublishPacket
from tests.proxy import Direction, Link, Proxy


class Traffic:
    """Packet ids that the broker has sent to the bridge and those that the bridge has acknowledged, in order."""

    def __init__(self) -> None:
        self.delivered: defaultdict[int, list[int]] = defaultdict(list)
        """Packet ids of QoS 1 messages by the number of the link."""
        self.acked: defaultdict[int, list[int]] = defaultdict(list)
        self._decoders: defaultdict[tuple[int, Direction], Decoder] = defaultdict(Decoder)

    @classmethod
    def of(cls, proxy: Proxy) -> "Traffic":
        """Begin to record the traffic."""
        traffic = cls()
        proxy.watch = traffic.see
        return traffic

    def see(self, link: Link, direction: Direction, data: bytes) -> None:
        """Add one chunk."""
        for packet in self._decoders[link.number, direction].feed(data):
            if isinstance(packet, PublishPacket) and direction == "down" and packet.packet_id is not None:
                self.delivered[link.number].append(packet.packet_id)
            elif isinstance(packet, PubAckPacket) and direction == "up":
                self.acked[link.number].append(packet.packet_id)
