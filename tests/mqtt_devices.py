"""Devices for the tests of the broker's security, on the third-party client paho-mqtt."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.until import wait_until

WAIT_S = 10.0


class DeviceClient:
    """A connection and what happened to it: the CONNACK, subscriptions, messages, the end."""

    def __init__(self, name: str, *, clean: bool = True) -> None:
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5, reconnect_on_failure=False
        )
        self.messages: list[tuple[str, bytes]] = []
        self.connack: str | None = None
        self.granted: list[str] = []
        self.acknowledged: dict[int, str] = {}
        self.ended = threading.Event()
        self._clean = clean
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = lambda *_: self.ended.set()
        self.paho.on_message = lambda _c, _u, m: self.messages.append((m.topic, bytes(m.payload)))
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.extend(str(code) for code in codes)
        self.paho.on_publish = lambda _c, _u, mid, code, _p: self.acknowledged.__setitem__(mid, str(code))

    def _on_connect(self, _client: mqtt.Client, _userdata: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self.connack = str(code)

    def connect(self, port: int) -> str:
        """Connect and return the CONNACK's reason. Raises `OSError` when there is none."""
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 0 if self._clean else 3600
        self.paho.connect("localhost", port, clean_start=self._clean, properties=session)
        self.paho.loop_start()
        wait_until(lambda: self.connack is not None or self.ended.is_set())
        if self.connack is None:
            raise ConnectionError("cut off before the CONNACK")
        return self.connack

    def publish(self, topic: str, payload: bytes = b"x") -> str:
        """Publish with QoS 1 and return the PUBACK's reason."""
        mid = self.paho.publish(topic, payload, qos=1).mid
        wait_until(lambda: mid in self.acknowledged)
        return self.acknowledged[mid]

    def subscribe(self, topic_filter: str) -> str:
        """Subscribe and return the SUBACK's reason."""
        count = len(self.granted)
        self.paho.subscribe(topic_filter, qos=1)
        wait_until(lambda: len(self.granted) > count)
        return self.granted[-1]

    def close(self) -> None:
        """Close the connection without a DISCONNECT."""
        with contextlib.suppress(ValueError):
            self.paho.disconnect()
        self.paho.loop_stop()


def with_certificate(credentials: Path, client_id: str = "client", *, clean: bool = True) -> DeviceClient:
    """A device with the certificate of this directory."""
    client = DeviceClient(client_id, clean=clean)
    key, certificate = credentials / "device.key", credentials / "device.crt"
    client.paho.tls_set(str(credentials / "ca.crt"), str(certificate), str(key), ssl.CERT_REQUIRED)
    return client


def with_password(
    credentials: Path, name: str, client_id: str = "client", *, password: str | None = None, clean: bool = True
) -> DeviceClient:
    """A device with this user name and the password of its directory."""
    client = DeviceClient(client_id, clean=clean)
    client.paho.tls_set(str(credentials / "ca.crt"))
    client.paho.username_pw_set(name, password or (credentials / "password").read_text())
    return client


@contextlib.contextmanager
def connected(client: DeviceClient, port: int) -> Iterator[DeviceClient]:
    """The connected client."""
    try:
        assert client.connect(port) == "Success"
        yield client
    finally:
        client.close()
