"""T1-TLS: end to end with devices that use TLS and mutual TLS, compared with devices in plain text.

Every device has its own connection and, in TLS, its own credentials from the provisioning, on the corresponding
listener; the bridge also uses TLS. The load generator is this module as a process.
"""

import asyncio
import itertools
import json
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import uvloop

from local.mosquitto import Mosquitto
from mosquitto import broker as running_broker
from mosquitto import provisioning
from mosquitto.device import Device, device
from tests.bench.end_to_end import finished, require_once
from tests.bench.load import Load, this_minute
from tests.bench.machine import Flood, Machine, result_of, worker
from tests.bench.publisher import Publisher, publish_packet
from tests.bench.report import Figure, median_ratio

DEVICES = 100
_CHUNK = 10  # messages a device sends at once; all of them are under way in turn
_WINDOW = 40  # of each device
_PACKET_IDS = 65_000


class Entrance(NamedTuple):
    """How one device connects: its URL and, in TLS, the CA and its own certificate and key."""

    url: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context with the CA and, if it has one, the client certificate."""
        if self.ca is None:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


Entrances = Callable[[Mosquitto, list[Device]], list[Entrance]]


def plain(broker: Mosquitto, devices: list[Device]) -> list[Entrance]:
    """The gateway listener, which has no TLS."""
    return [Entrance(broker.url) for _ in devices]


def by_password(broker: Mosquitto, devices: list[Device]) -> list[Entrance]:
    """The listener for passwords in TLS."""
    place = broker.provisioning
    provisioning.add_passwords(place, devices)
    passwords = [(place.credentials(str(one)) / "password").read_text() for one in devices]
    names = [str(one).replace("/", "%2F") for one in devices]
    address, ca = f"127.0.0.1:{broker.password_port}", str(place.ca_certificate)
    return [Entrance(f"mqtts://{n}:{p}@{address}", ca) for n, p in zip(names, passwords, strict=True)]


def by_certificate(broker: Mosquitto, devices: list[Device]) -> list[Entrance]:
    """The listener for certificates."""
    place = broker.provisioning
    provisioning.add_certificates(place, devices, timedelta(days=1))
    url, ca = f"mqtts://127.0.0.1:{broker.tls_port}", str(place.ca_certificate)
    own = [place.credentials(str(one)) for one in devices]
    return [Entrance(url, ca, str(one / "device.crt"), str(one / "device.key")) for one in own]


def _let_in(broker: Mosquitto, load: Load, entrances: Entrances) -> list[Entrance]:
    """Provision the load's devices; the broker reads it before it accepts another connection."""
    topics = [load.message(n)[0].split("/") for n in range(load.devices)]
    found = entrances(broker, [device(kind, id_) for _, kind, id_, _ in topics])
    running_broker.reload(broker.provisioning)
    return found


def _bridge_settings(broker: Mosquitto, entrances: Entrances) -> dict[str, str]:
    """The bridge's connection: its own plain listener, or its account by TLS (it has no certificate)."""
    if entrances is plain:
        return {}
    url = broker.bridge_url.replace("mqtt://", "mqtts://").replace(f":{broker.bridge_port}", f":{broker.password_port}")
    return {"FLEET_BRIDGE_MQTT_URL": url, "FLEET_MQTT_CA_FILE": str(broker.provisioning.ca_certificate)}


async def _flood(load: Load, entrances: list[Entrance]) -> Flood:
    order = {"load": [*load._replace(now=load.now.isoformat())], "entrances": entrances}  # type: ignore[arg-type]
    async with worker("tests.bench.tls", order) as process:
        return Flood(**await result_of(process))


async def _alone(machine: Machine, load: Load, entrances: Entrances) -> float:
    """Readings/s of this load generator into a broker without subscribers."""
    with machine.broker() as broker:
        return (await _flood(load, _let_in(broker, load, entrances))).rate


async def _through(machine: Machine, load: Load, entrances: Entrances) -> float:
    """Readings/s from the first publish to the last commit; every reading is there afterwards, once."""
    with machine.database() as url, machine.broker() as broker:
        settings = _bridge_settings(broker, entrances)
        with machine.bridge(url, broker, settings) as bridge:
            before_s = bridge.cpu_s()
            sent = await _flood(load, _let_in(broker, load, entrances))
            run = await finished([bridge], load, sent, before_s)
        await require_once(url, load)
        return run.rate


async def t1_tls(machine: Machine) -> list[Figure]:
    """The three ways to connect, alternating, compared with plain text."""
    load = Load(100_000 if machine.quick else 300_000, DEVICES, this_minute())
    return await measured(machine, load, rounds=3)


async def measured(machine: Machine, load: Load, rounds: int) -> list[Figure]:
    """As many rounds of the three ways with this load."""
    ways: tuple[Entrances, ...] = (plain, by_password, by_certificate)
    runs = [[await _through(machine, load, way) for way in ways] for _ in range(rounds)]
    alone = [await _alone(machine, load, way) for way in ways]
    figures = []
    for n, name in enumerate(("tls", "mtls"), start=1):
        ratio, spread = median_ratio([(run[n], run[0]) for run in runs])
        made_of = f"{runs[-1][n]:,.0f}/s : {runs[-1][0]:,.0f}/s; {spread}"
        ceiling = f"{alone[n]:,.0f}/s : {alone[0]:,.0f}/s"
        figures.append(
            Figure(f"T1 {name}", f"T1 {name} : T1 plain", ratio, None, None, ceiling=ceiling, detail=made_of)
        )
    return figures


def _chunks(load: Load, device_number: int) -> Iterator[tuple[int, bytes]]:
    """How many messages of one device, and their packets."""
    numbers = range(device_number, load.messages, load.devices)
    packets = (publish_packet(*load.message(n), i % _PACKET_IDS + 1) for i, n in enumerate(numbers))
    while chunk := list(itertools.islice(packets, _CHUNK)):
        yield len(chunk), b"".join(chunk)


async def _send(publisher: Publisher, chunks: list[tuple[int, bytes]]) -> None:
    sent = 0
    for count, packets in chunks:
        await publisher.until_acked(sent + count - _WINDOW)
        publisher.send(packets)
        sent += count
        await asyncio.sleep(0)  # the other devices' turn
    await publisher.until_acked(sent)


async def _publish(order: dict[str, Any]) -> None:
    messages, devices, now, *rest = order["load"]
    load = Load(messages, devices, datetime.fromisoformat(now), *rest)
    chunks = [list(_chunks(load, n)) for n in range(load.devices)]
    entrances = [Entrance(*one) for one in order["entrances"]]
    publishers = [await Publisher.open(one.url, f"bench-{n}", one.tls()) for n, one in enumerate(entrances)]
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    began, began_cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*map(_send, publishers, chunks))
    rate = load.readings / (time.monotonic() - began)
    cpu_us = (time.process_time() - began_cpu) / load.readings * 1e6
    _say(json.dumps({"began": began, "rate": rate, "cpu_us": cpu_us}))
    for publisher in publishers:
        publisher.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_publish(json.loads(sys.argv[1])))
