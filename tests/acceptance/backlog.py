"""An honest device with a backlog, before a broker with the limits of mosquitto/device-rate.nft: as root,
`python -m tests.acceptance.backlog DIRECTORY KILOBYTES` prints what it took as JSON.
"""

import json
import re
import socket
import struct
import sys
import time
from datetime import timedelta
from pathlib import Path

from local.mosquitto import Mosquitto
from mosquitto import provisioning
from mosquitto.device import device
from tests.device_rate import enter_own_network, limit, rules
from tests.mqtt_devices import connected, with_certificate
from tests.until import wait_until

_MESSAGE_KB = 50
_PATIENCE_S = 120.0


def main() -> None:
    directory, kilobytes = Path(sys.argv[1]), int(sys.argv[2])
    enter_own_network()
    broker = Mosquitto(directory / "mosquitto")
    provisioning.initialise(broker.provisioning, ["localhost"])
    provisioning.add_certificates(broker.provisioning, [device("vehicle", "EV_1")], timedelta(days=1))
    broker.start()
    try:
        limit(broker.tls_port, broker.password_port)
        limit(broker.tls_port, broker.password_port)  # as after an upgrade
        forged = _counted_after_forged(broker.tls_port)
        sys.stdout.write(json.dumps({**_sent(broker, kilobytes), "forged": forged}) + "\n")
    finally:
        broker.stop()


def _counted_after_forged(port: int) -> int:
    """How many connections are counted after ACKs of ones that do not exist: forged packets must not fill a set."""
    local = socket.inet_aton("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for sender in range(40_000, 40_100):
            pseudo_header = local + local + struct.pack(">BBH", 0, socket.IPPROTO_TCP, 20)
            packet = _ack(sender, port, _checksum(pseudo_header + _ack(sender, port, 0)))
            for _ in range(2):
                raw.sendto(packet, ("127.0.0.1", 0))
    return len(re.findall(r"expires", rules()))


def _ack(sender: int, port: int, checksum: int) -> bytes:
    return struct.pack(">HHIIBBHHH", sender, port, 1, 1, 5 << 4, 0x10, 1024, checksum, 0)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _sent(broker: Mosquitto, kilobytes: int) -> dict[str, float]:
    began = time.monotonic()
    with connected(with_certificate(broker.provisioning.credentials("vehicle/EV_1")), broker.tls_port) as vehicle:
        payload = b"x" * (_MESSAGE_KB * 1024)
        sent = [
            vehicle.paho.publish("fleet/vehicle/EV_1/telemetry", payload, qos=1).mid
            for _ in range(kilobytes // _MESSAGE_KB)
        ]
        wait_until(lambda: len(vehicle.acknowledged) == len(sent), "every message is acknowledged", _PATIENCE_S)
        took_s = time.monotonic() - began
    (dropped,) = re.findall(r"counter of_connections \{\s*packets (\d+)", rules())
    return {"seconds": took_s, "acknowledged": len(sent), "dropped": int(dropped)}


if __name__ == "__main__":
    main()
