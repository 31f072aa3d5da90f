"""What happens to the broker and to the ways there, from the devices and from the bridge."""

import queue
import random
import shutil
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from tests.acceptance.chaos.fault import fault, repeatedly
from tests.acceptance.chaos.publisher import properties
from tests.acceptance.chaos.stack import SETTINGS, Stack
from tests.until import wait_until

_BEYOND_KEEP_ALIVE_S = 4.0


@fault("mqtt-cut-often", hold_s=2.0)
def cut_often(stack: Stack, rng: random.Random) -> Iterator[None]:
    with repeatedly(stack.broker_link.cut, rng, 0.05, 0.5):
        yield


@fault("mqtt-half-open", hold_s=_BEYOND_KEEP_ALIVE_S)
def half_open(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The broker is gone and nothing says so."""
    stack.broker_link.swallow()
    yield
    stack.broker_link.heal()


@fault("mqtt-keep-alive-expires", hold_s=_BEYOND_KEEP_ALIVE_S)
def keep_alive_expires(stack: Stack, rng: random.Random) -> Iterator[None]:
    """A partition: the broker gives the bridge up, and what was under way arrives late on a dead connection."""
    stack.broker_link.stall()
    yield
    stack.broker_link.heal()


@fault("mqtt-taken-over", alone=True)
def taken_over(stack: Stack, rng: random.Random) -> Iterator[None]:
    """Another client with the bridge's client id, which takes messages and acknowledges none."""
    wait_until(stack.bridge.ready, "the bridge is subscribed")
    _steal_session(stack)
    yield
    # Mosquitto 2.0.11 closes the old connection without the reason (0x8E) that raises fleet_mqtt_taken_over_total.
    wait_until(lambda: stack.bridge.metric("fleet_mqtt_connects_total") > 1, "the bridge has connected again")


@fault("devices-cut-often", hold_s=1.5)
def devices_cut_often(stack: Stack, rng: random.Random) -> Iterator[None]:
    with repeatedly(stack.device_link.cut, rng, 0.1, 0.6):
        yield


@fault("broker-restart")
def broker_restart(stack: Stack, rng: random.Random) -> Iterator[None]:
    """It saves its queue when it stops, so its PUBACKs hold."""
    stack.broker.stop()
    stack.broker.start()
    yield


@fault("broker-kill")
def broker_kill(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.broker.process.kill()
    stack.kills += 1
    stack.broker.start()
    stack.forgive_broker()
    yield


@fault("broker-kill-with-backlog", alone=True)
def broker_kill_with_backlog(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The bridge is away, so what the broker has acknowledged lies in its memory alone: it is lost, and counted."""
    stack.supervised = False
    stack.bridge.process.stop()
    yield
    stack.broker.process.kill()
    stack.kills += 1
    stack.broker.start()
    stack.forgive_broker()
    stack.supervised = True


@fault("broker-old-snapshot")
def broker_old_snapshot(stack: Stack, rng: random.Random) -> Iterator[None]:
    """It forgets what is new, and delivers again what was acknowledged long ago."""
    database = stack.broker.directory / "data" / "mosquitto.db"
    database.unlink(missing_ok=True)
    stack.broker.process.send(signal.SIGUSR1)
    wait_until(database.exists, "the broker saves its queue")
    old = database.with_suffix(".old")
    shutil.copy2(database, old)
    yield
    stack.broker.stop()
    shutil.copyfile(old, database)
    stack.broker.start()
    stack.forgive_broker()


@fault("broker-lost-database", alone=True)
def broker_lost_database(stack: Stack, rng: random.Random) -> Iterator[None]:
    stack.broker.process.kill()
    stack.kills += 1
    for file in (stack.broker.directory / "data").iterdir():
        file.unlink()
    known = stack.bridge.metric("fleet_mqtt_session_lost_total")
    stack.broker.start()
    stack.forgive_broker()
    yield
    wait_until(lambda: stack.bridge.metric("fleet_mqtt_session_lost_total") > known, "the alarm: session lost")


@fault("broker-queue-full", hold_s=1.5, alone=True)
def broker_queue_full(stack: Stack, rng: random.Random) -> Iterator[None]:
    """The bridge is frozen and the queue at its cap: the broker drops, and the bridge must say so."""
    stack.bridge.process.send(signal.SIGSTOP)
    _restart_with_queue_of(stack, 100)
    yield
    stack.bridge.process.send(signal.SIGCONT)
    wait_until(lambda: stack.bridge.metric("fleet_broker_dropped_messages") > 0, "the alarm: dropped by the broker")
    _restart_with_queue_of(stack, 50_000_000)
    stack.forgive_broker()


def _restart_with_queue_of(stack: Stack, most: int) -> None:
    stack.broker.stop()
    stack.broker.limit_queue(most)
    stack.broker.start()


def _steal_session(stack: Stack) -> None:
    parts = urlsplit(stack.broker.bridge_url)
    thief = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"fleet-bridge-{SETTINGS['FLEET_BRIDGE_NAME']}",
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=True,
        reconnect_on_failure=False,
    )
    thief.username_pw_set(parts.username, parts.password)
    session = properties(PacketTypes.CONNECT, SessionExpiryInterval=3600)
    came: queue.SimpleQueue[str] = queue.SimpleQueue()
    thief.on_connect = lambda *_: came.put("connected")
    thief.on_disconnect = lambda *_: came.put("disconnected")
    thief.connect(parts.hostname or "", parts.port or 1883, clean_start=False, properties=session)
    thief.loop_start()
    assert came.get(timeout=10) == "connected"
    assert came.get(timeout=10) == "disconnected", "the bridge takes its session back"
    thief.loop_stop()
