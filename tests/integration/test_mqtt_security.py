"""Attacks on the real broker with a device's certificate, a foreign one or none: they are refused."""

import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from local.mosquitto import Mosquitto
from local.process import give_to_service
from mosquitto import authority, broker, provisioning
from mosquitto.device import Device, device
from mosquitto.directory import Directory, accounts
from tests.mqtt_devices import WAIT_S, DeviceClient, connected, with_certificate, with_password
from tests.until import wait_until

EV_1, EV_2, METER = device("vehicle", "EV_1"), device("vehicle", "EV_2"), device("meter", "EV_1")
LIFE = timedelta(days=30)
TELEMETRY = "fleet/vehicle/EV_1/telemetry"
# MQTT 5, clean start, keep-alive 60 s, no properties, client id `x`.
_CONNECT = b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01x"


@pytest.fixture
def broker_server(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with two vehicles that have certificates and a meter that has a password."""
    server = Mosquitto(tmp_path / "mosquitto")
    server.start()
    provisioning.add_certificates(server.provisioning, [EV_1, EV_2], LIFE)
    provisioning.add_passwords(server.provisioning, [METER])
    broker.reload(server.provisioning)
    yield server
    server.stop()


@pytest.fixture
def listening(broker_server: Mosquitto) -> Iterator[DeviceClient]:
    """A subscriber to everything, with the bridge's rights, to see which messages are accepted."""
    client = account(broker_server, "bridge", "listening")
    with connected(client, broker_server.bridge_port):
        client.subscribe("fleet/vehicle/+/telemetry")
        client.subscribe("fleet/meter/+/telemetry")
        yield client


def account(server: Mosquitto, name: str, client_id: str, *, clean: bool = True) -> DeviceClient:
    """A client of an internal account, in plain text."""
    client = DeviceClient(client_id, clean=clean)
    client.paho.username_pw_set(name, accounts(server.provisioning)[name])
    return client


def credentials(server: Mosquitto, one: Device) -> Path:
    return server.provisioning.credentials(str(one))


def vehicle(server: Mosquitto, one: Device = EV_1, client_id: str = "client", *, clean: bool = True) -> DeviceClient:
    return with_certificate(credentials(server, one), client_id, clean=clean)


def meter(server: Mosquitto, client_id: str = "client", *, clean: bool = True) -> DeviceClient:
    return with_password(credentials(server, METER), str(METER), client_id, clean=clean)


def provision(server: Mosquitto, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m mosquitto device ...` against this broker."""
    command = [sys.executable, "-m", "mosquitto", "device", *arguments, "--dir", str(server.directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def refused(client: DeviceClient, port: int) -> bool:
    """Whether the client is refused, in any way."""
    try:
        return client.connect(port) != "Success"
    except (OSError, ssl.SSLError):
        return True
    finally:
        client.close()


def test_device_publishes_its_telemetry_and_hears_its_receipts(
    broker_server: Mosquitto, listening: DeviceClient
) -> None:
    with (
        connected(vehicle(broker_server), broker_server.tls_port) as one,
        connected(meter(broker_server), broker_server.password_port) as other,
    ):
        assert one.publish(TELEMETRY) == other.publish("fleet/meter/EV_1/telemetry") == "Success"
        wait_until(lambda: len(listening.messages) == 2)
        one.subscribe("fleet/vehicle/EV_1/receipt")
        listening.publish("fleet/vehicle/EV_1/receipt", b"stored")
        wait_until(lambda: one.messages == [("fleet/vehicle/EV_1/receipt", b"stored")])


@pytest.mark.parametrize(
    "topic",
    [
        "fleet/vehicle/EV_2/telemetry",
        "fleet/meter/EV_1/telemetry",
        "fleet/vehicle/EV_1/receipt",
        "fleet/vehicle/EV_1/telemetry/more",
        "fleet/vehicle/EV_1",
        "fleet/bridge/main/status",
        "fleet/EV_1/telemetry",
        "other",
        "$SYS/broker/version",
        "$share/group/fleet/vehicle/EV_1/telemetry",
        "$CONTROL/dynamic-security/v1",
    ],
)
def test_publish_elsewhere_is_refused(broker_server: Mosquitto, topic: str) -> None:
    with connected(vehicle(broker_server), broker_server.tls_port) as attacker:
        assert attacker.publish(topic) == "Not authorized"


@pytest.mark.parametrize("name", ["bridge", "gateway", "provisioner", "vehicle/EV_2"])
def test_user_name_is_that_of_the_certificate_for_any_connect(
    broker_server: Mosquitto, listening: DeviceClient, name: str
) -> None:
    attacker = vehicle(broker_server, client_id=name)
    attacker.paho.username_pw_set(name, accounts(broker_server.provisioning).get(name, "x"))
    with connected(attacker, broker_server.tls_port):
        assert attacker.publish(TELEMETRY) == "Success"
        assert attacker.publish("fleet/vehicle/EV_2/telemetry") == "Not authorized"
        assert attacker.publish("fleet/bridge/main/status") == "Not authorized"
    wait_until(lambda: bool(listening.messages))
    assert [topic for topic, _ in listening.messages] == [TELEMETRY]


@pytest.mark.parametrize("name", ["gateway", "provisioner"])
def test_internal_accounts_cannot_speak_for_the_bridge(broker_server: Mosquitto, name: str) -> None:
    with connected(account(broker_server, name, "x"), broker_server.port) as attacker:
        assert attacker.publish("fleet/bridge/main/status") == "Not authorized"
        assert attacker.publish("fleet/vehicle/EV_1/receipt") == "Not authorized"


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "fleet/#",
        "+/+/+/+",
        "fleet/vehicle/+/telemetry",
        "fleet/vehicle/EV_2/#",
        "fleet/meter/EV_1/#",
        "$SYS/#",
        "$SYS/broker/version",
        "$share/group/#",
        "$share/group/fleet/vehicle/+/telemetry",
        "fleet/bridge/+/status",
        "$CONTROL/#",
    ],
)
def test_subscription_elsewhere_hears_nothing_and_takes_nothing(
    broker_server: Mosquitto, listening: DeviceClient, topic_filter: str
) -> None:
    listening.paho.publish("fleet/bridge/main/status", b"online", qos=1, retain=True)
    with (
        connected(vehicle(broker_server), broker_server.tls_port) as attacker,
        connected(vehicle(broker_server, EV_2), broker_server.tls_port) as other,
    ):
        attacker.subscribe(topic_filter)
        attacker.subscribe("fleet/vehicle/EV_1/end")
        for n in range(20):
            assert other.publish("fleet/vehicle/EV_2/telemetry", b"%d" % n) == "Success"
        wait_until(lambda: len(listening.messages) == 20)
        listening.publish("fleet/vehicle/EV_1/end")
        wait_until(lambda: ("fleet/vehicle/EV_1/end", b"x") in attacker.messages)
        assert {topic for topic, _ in attacker.messages} == {"fleet/vehicle/EV_1/end"}


@pytest.mark.parametrize("group", ["group", "main", "bridge"])
def test_shared_subscription_of_a_device_takes_nothing_from_the_bridge(broker_server: Mosquitto, group: str) -> None:
    """Mosquitto 2.0 grants it. The device receives nothing and the bridge misses nothing, with either disconnected."""
    filters = ["fleet/vehicle/+/telemetry", "fleet/meter/+/telemetry"]
    expected = [b"%d" % n for n in range(40)]

    def attacker() -> DeviceClient:
        return vehicle(broker_server, clean=False)

    def bridge() -> DeviceClient:
        return account(broker_server, "bridge", broker_server.bridge_client_id, clean=False)

    with (
        connected(vehicle(broker_server, EV_2), broker_server.tls_port) as other,
        connected(bridge(), broker_server.bridge_port) as before,
    ):
        for topic_filter in filters:
            before.subscribe(topic_filter)
        with connected(attacker(), broker_server.tls_port) as present:
            for topic_filter in [*filters, "#", "fleet/vehicle/EV_2/#"]:
                present.subscribe(f"$share/{group}/{topic_filter}")
            for payload in expected[:20]:
                assert other.publish("fleet/vehicle/EV_2/telemetry", payload) == "Success"
            wait_until(lambda: len(before.messages) == 20)
        for payload in expected[20:30]:
            other.publish("fleet/vehicle/EV_2/telemetry", payload)
        wait_until(lambda: len(before.messages) == 30)
        before.close()
        for payload in expected[30:]:
            other.publish("fleet/vehicle/EV_2/telemetry", payload)
        with (
            connected(bridge(), broker_server.bridge_port) as after,
            connected(attacker(), broker_server.tls_port) as again,
        ):
            wait_until(lambda: len(before.messages) + len(after.messages) >= 40)
            assert [payload for _, payload in before.messages + after.messages] == expected
            again.subscribe("fleet/vehicle/EV_1/end")
            after.publish("fleet/vehicle/EV_1/end")
            wait_until(lambda: bool(again.messages))
            assert present.messages == []
            assert set(again.messages) == {("fleet/vehicle/EV_1/end", b"x")}  # may arrive twice, by its group


def test_retained_message_and_will_elsewhere_are_refused(broker_server: Mosquitto, listening: DeviceClient) -> None:
    attacker = vehicle(broker_server)
    attacker.paho.will_set("fleet/vehicle/EV_2/telemetry", b"will", qos=1, retain=True)
    with connected(attacker, broker_server.tls_port):
        mid = attacker.paho.publish("fleet/bridge/main/status", b"offline", qos=1, retain=True).mid
        wait_until(lambda: attacker.acknowledged.get(mid) == "Not authorized")
        sock = attacker.paho.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)  # no DISCONNECT: the broker sends the will
        wait_until(attacker.ended.is_set)
    with connected(vehicle(broker_server, EV_2), broker_server.tls_port) as other:
        other.publish("fleet/vehicle/EV_2/telemetry", b"own")
    wait_until(lambda: bool(listening.messages))
    assert listening.messages == [("fleet/vehicle/EV_2/telemetry", b"own")]


@pytest.mark.parametrize("clean", [True, False])
def test_bridge_session_stays_with_the_bridge(broker_server: Mosquitto, clean: bool) -> None:
    client_id = broker_server.bridge_client_id
    bridge = account(broker_server, "bridge", client_id, clean=False)
    with connected(bridge, broker_server.bridge_port):
        bridge.subscribe("fleet/vehicle/+/telemetry")
        with (
            connected(vehicle(broker_server, client_id=client_id, clean=clean), broker_server.tls_port) as one,
            connected(meter(broker_server, client_id=client_id, clean=clean), broker_server.password_port) as other,
        ):
            assert one.publish(TELEMETRY) == "Success"
            wait_until(lambda: len(bridge.messages) == 1)
            assert other.messages == one.messages == []
        assert not bridge.ended.is_set()


def test_bridge_client_id_is_secret_kept_and_valid(broker_server: Mosquitto) -> None:
    client_id = broker_server.bridge_client_id
    assert re.fullmatch(r"fleet-bridge-[A-Za-z0-9_-]{24}", client_id)
    assert Mosquitto(broker_server.directory).bridge_client_id == client_id


def test_vehicle_and_meter_of_one_id_are_two_clients(broker_server: Mosquitto, listening: DeviceClient) -> None:
    with (
        connected(vehicle(broker_server), broker_server.tls_port) as one,
        connected(meter(broker_server), broker_server.password_port) as other,
    ):
        assert one.publish(TELEMETRY) == other.publish("fleet/meter/EV_1/telemetry") == "Success"
        assert not one.ended.is_set()


@pytest.mark.parametrize("listener", ["port", "bridge_port", "tls_port", "password_port"])
def test_anonymous_is_refused(broker_server: Mosquitto, listener: str) -> None:
    client = DeviceClient("x")
    if listener.startswith(("tls", "pass")):
        client.paho.tls_set(str(broker_server.provisioning.ca_certificate))
    assert refused(client, getattr(broker_server, listener))


@pytest.mark.parametrize("user", ["vehicle/EV_1", "meter/EV_1", "bridge", "gateway", "+/+", "#", "", "nobody"])
def test_password_that_is_wrong_is_refused(broker_server: Mosquitto, user: str) -> None:
    assert refused(
        with_password(credentials(broker_server, METER), user, password="wrong"), broker_server.password_port
    )


def test_password_does_not_replace_the_certificate(broker_server: Mosquitto) -> None:
    assert refused(meter(broker_server), broker_server.tls_port)


def test_certificate_of_a_foreign_ca_is_refused(broker_server: Mosquitto, tmp_path: Path) -> None:
    foreign = Directory(tmp_path / "foreign")
    provisioning.initialise(foreign, ["localhost"])
    provisioning.add_certificates(foreign, [EV_1], LIFE)
    place = foreign.credentials(str(EV_1))
    (place / "ca.crt").write_bytes(broker_server.provisioning.ca_certificate.read_bytes())
    assert refused(with_certificate(place), broker_server.tls_port)


@pytest.mark.parametrize("signer", ["self", "device"])
def test_certificate_not_signed_by_the_ca_is_refused(broker_server: Mosquitto, tmp_path: Path, signer: str) -> None:
    """Neither a self-signed certificate nor one that is signed by a device's certificate."""
    key, certificate = authority.create()
    if signer == "device":
        place = credentials(broker_server, EV_2)
        key, certificate = (place / "device.key").read_bytes(), (place / "device.crt").read_bytes()
    issued = authority.issue_device(authority.load(key, certificate), EV_1, LIFE)
    (tmp_path / "device.key").write_bytes(issued.key)
    (tmp_path / "device.crt").write_bytes(issued.certificate + certificate)
    (tmp_path / "ca.crt").write_bytes(broker_server.provisioning.ca_certificate.read_bytes())
    assert refused(with_certificate(tmp_path), broker_server.tls_port)


def test_expired_certificate_is_refused(broker_server: Mosquitto) -> None:
    expired = device("vehicle", "EV_OLD")
    provisioning.add_certificates(broker_server.provisioning, [expired], timedelta(seconds=-60))
    assert refused(vehicle(broker_server, expired), broker_server.tls_port)


def test_broker_certificate_is_no_device(broker_server: Mosquitto, tmp_path: Path) -> None:
    place = broker_server.provisioning.broker
    client = DeviceClient("x")
    client.paho.tls_set(str(place / "ca.crt"), str(place / "server.crt"), str(place / "server.key"))
    assert refused(client, broker_server.tls_port)


def test_device_certificate_cannot_pass_for_the_broker(broker_server: Mosquitto) -> None:
    place = credentials(broker_server, EV_1)
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.load_cert_chain(place / "device.crt", place / "device.key")
    client.load_verify_locations(place / "ca.crt")
    client.check_hostname = False
    ends = [ssl.MemoryBIO() for _ in range(4)]
    asking = client.wrap_bio(ends[0], ends[1])
    answering = server.wrap_bio(ends[2], ends[3], server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        asking.do_handshake()
    ends[2].write(ends[1].read())
    with pytest.raises(ssl.SSLWantReadError):
        answering.do_handshake()
    ends[0].write(ends[3].read())
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose|unsuitable"):
        asking.do_handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(broker_server: Mosquitto, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", broker_server.tls_port)) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


def test_revoked_certificate_ends_the_connection_at_once(broker_server: Mosquitto, listening: DeviceClient) -> None:
    with (
        connected(vehicle(broker_server), broker_server.tls_port) as stolen,
        connected(vehicle(broker_server, EV_2), broker_server.tls_port) as other,
    ):
        assert stolen.publish(TELEMETRY) == "Success"
        provision(broker_server, "revoke", "EV_1", "--kind", "vehicle")
        assert stolen.ended.wait(WAIT_S)
        assert refused(vehicle(broker_server), broker_server.tls_port)
        assert other.publish("fleet/vehicle/EV_2/telemetry") == "Success"
        assert not other.ended.is_set()
    wait_until(lambda: len(listening.messages) == 2)


def test_revocation_of_a_vehicle_leaves_the_meter_of_its_id(broker_server: Mosquitto, listening: DeviceClient) -> None:
    with connected(meter(broker_server), broker_server.password_port) as other:
        provision(broker_server, "revoke", "EV_1", "--kind", "vehicle")
        assert other.publish("fleet/meter/EV_1/telemetry") == "Success"
        assert not other.ended.is_set()


def test_handshake_before_the_revocation_gives_nothing_after_it(
    broker_server: Mosquitto, listening: DeviceClient
) -> None:
    """A client that delays CONNECT after its TLS handshake can still connect, but not publish."""
    place = credentials(broker_server, EV_1)
    context = ssl.create_default_context(cafile=str(place / "ca.crt"))
    context.load_cert_chain(place / "device.crt", place / "device.key")
    port = broker_server.tls_port
    with context.wrap_socket(socket.create_connection(("localhost", port)), server_hostname="localhost") as held:
        provision(broker_server, "revoke", "EV_1", "--kind", "vehicle")
        held.sendall(_CONNECT)
        assert held.recv(2)[:1] == b"\x20"
        topic = TELEMETRY.encode()
        held.sendall(bytes([0x30, 2 + len(topic) + 1 + 1, 0, len(topic)]) + topic + b"\0x")
        held.sendall(b"\xc0\0")  # a PINGREQ, which is answered after the publish was checked
        while b"\xd0\0" not in (answer := held.recv(4096)):
            assert answer
    with connected(vehicle(broker_server, EV_2), broker_server.tls_port) as other:
        other.publish("fleet/vehicle/EV_2/telemetry", b"own")
    wait_until(lambda: bool(listening.messages))
    assert listening.messages == [("fleet/vehicle/EV_2/telemetry", b"own")]


def test_tls_session_of_a_revoked_certificate_is_not_resumed(broker_server: Mosquitto) -> None:
    place, port = credentials(broker_server, EV_1), broker_server.tls_port
    context = ssl.create_default_context(cafile=str(place / "ca.crt"))
    context.load_cert_chain(place / "device.crt", place / "device.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where a refused certificate shows in the handshake itself
    with context.wrap_socket(socket.create_connection(("localhost", port)), server_hostname="localhost") as first:
        session = first.session
    provision(broker_server, "revoke", "EV_1", "--kind", "vehicle")
    with socket.create_connection(("localhost", port)) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname="localhost", session=session)


def test_revoked_password_ends_the_connection_at_once(broker_server: Mosquitto) -> None:
    with connected(meter(broker_server), broker_server.password_port) as stolen:
        provision(broker_server, "revoke", "EV_1", "--kind", "meter")
        assert stolen.ended.wait(WAIT_S)
    assert refused(meter(broker_server), broker_server.password_port)


def test_new_device_comes_in_without_a_restart(broker_server: Mosquitto, listening: DeviceClient) -> None:
    pid = broker_server.process.pid
    with connected(vehicle(broker_server), broker_server.tls_port) as before:
        provision(broker_server, "add", "NEW", "--kind", "vehicle")
        provision(broker_server, "add", "NEW", "--kind", "meter", "--password")
        new = device("meter", "NEW")
        with connected(vehicle(broker_server, device("vehicle", "NEW")), broker_server.tls_port):
            client = with_password(credentials(broker_server, new), str(new))
            with connected(client, broker_server.password_port):
                assert client.publish("fleet/meter/NEW/telemetry") == "Success"
        assert not before.ended.is_set()
    assert broker.running_pid(broker_server.provisioning) == pid


def test_revoked_device_comes_back_with_a_new_certificate_only(
    broker_server: Mosquitto, listening: DeviceClient, tmp_path: Path
) -> None:
    old = credentials(broker_server, EV_1).rename(tmp_path / "old")
    provision(broker_server, "revoke", "EV_1", "--kind", "vehicle")
    provision(broker_server, "add", "EV_1", "--kind", "vehicle")
    assert refused(with_certificate(old), broker_server.tls_port)
    with connected(vehicle(broker_server), broker_server.tls_port) as again:
        assert again.publish(TELEMETRY) == "Success"


def test_rotated_certificate_takes_the_place_of_the_old_one(
    broker_server: Mosquitto, listening: DeviceClient, tmp_path: Path
) -> None:
    first = credentials(broker_server, EV_1).rename(tmp_path / "first")
    provision(broker_server, "rotate", "EV_1", "--kind", "vehicle", "--keep-old")
    second = credentials(broker_server, EV_1)
    with connected(with_certificate(first), broker_server.tls_port) as one:
        assert one.publish(TELEMETRY) == "Success"
    second = second.rename(tmp_path / "second")
    with connected(with_certificate(second), broker_server.tls_port) as one:
        provision(broker_server, "rotate", "EV_1", "--kind", "vehicle")
        assert one.ended.wait(WAIT_S)
    for old in (first, second):
        assert refused(with_certificate(old), broker_server.tls_port)
    with connected(vehicle(broker_server), broker_server.tls_port) as one:
        assert one.publish(TELEMETRY) == "Success"


def test_restart_keeps_who_is_in_and_who_is_out(broker_server: Mosquitto) -> None:
    provision(broker_server, "revoke", "EV_2")
    broker_server.stop()
    ports = {name: getattr(broker_server, name) for name in ("port", "bridge_port", "tls_port", "password_port")}
    again = Mosquitto(broker_server.directory, **ports)
    again.start()
    try:
        assert again.url == broker_server.url
        with connected(vehicle(again), again.tls_port), connected(meter(again), again.password_port):
            assert refused(vehicle(again, EV_2), again.tls_port)
    finally:
        again.stop()


def test_reload_while_the_broker_starts_does_not_end_it(tmp_path: Path) -> None:
    server = Mosquitto(tmp_path / "mosquitto")

    def tell() -> None:
        while not broker.reload(server.provisioning):
            pass

    with ThreadPoolExecutor(1) as beside:  # not the start, because a server ends with the thread that started it
        for _ in range(10):
            told = beside.submit(tell)
            server.start()
            told.result(WAIT_S)
            assert server.process.running
            server.stop()


def test_broker_that_has_ended_is_not_told_and_not_waited_for(tmp_path: Path) -> None:
    server = Mosquitto(tmp_path / "mosquitto")
    server.start()
    server.process.send(signal.SIGKILL)  # its exit status is not collected, so it stays as a zombie
    wait_until(lambda: not broker.reload(server.provisioning))
    server.stop()


def test_reload_keeps_the_queue_of_a_bridge_that_is_away(broker_server: Mosquitto) -> None:
    """On SIGHUP Mosquitto checks the passwords of connected clients only."""
    client_id = broker_server.bridge_client_id
    bridge = account(broker_server, "bridge", client_id, clean=False)
    with connected(bridge, broker_server.bridge_port):
        bridge.subscribe("fleet/vehicle/+/telemetry")
    with connected(vehicle(broker_server), broker_server.tls_port) as one:
        one.publish(TELEMETRY, b"before")
        provision(broker_server, "add", "NEW", "--kind", "vehicle")
        one.publish(TELEMETRY, b"after")
    again = account(broker_server, "bridge", client_id, clean=False)
    with connected(again, broker_server.bridge_port):
        wait_until(lambda: [payload for _, payload in again.messages] == [b"before", b"after"])


def test_oversize_packet_disconnects_its_sender_only(broker_server: Mosquitto, listening: DeviceClient) -> None:
    with (
        connected(vehicle(broker_server), broker_server.tls_port) as attacker,
        connected(vehicle(broker_server, EV_2), broker_server.tls_port) as other,
    ):
        attacker.paho.publish(TELEMETRY, b"x" * (1 << 20), qos=1)
        assert attacker.ended.wait(WAIT_S)
        assert other.publish("fleet/vehicle/EV_2/telemetry") == "Success"
        wait_until(lambda: len(listening.messages) == 1)
        assert not other.ended.is_set()


def test_keep_alive_has_a_limit(broker_server: Mosquitto) -> None:
    assert connack(broker_server, b"\4", 600) == b"\x20\2\0\0"
    server_keep_alive = b"\x13" + (600).to_bytes(2)
    assert server_keep_alive not in connack(broker_server, b"\5", 600)
    for too_long in (0, 601, 65_535):
        assert server_keep_alive in connack(broker_server, b"\5", too_long)


def connack(server: Mosquitto, version: bytes, keep_alive_s: int) -> bytes:
    """The answer to a CONNECT of the gateway, as bytes (4: MQTT 3.1.1)."""
    texts = [b"x", b"gateway", accounts(server.provisioning)["gateway"].encode()]
    payload = b"".join(len(text).to_bytes(2) + text for text in texts)
    no_properties = b"\0" if version == b"\5" else b""
    packet = b"\0\4MQTT" + version + b"\xc2" + keep_alive_s.to_bytes(2) + no_properties + payload
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
        connection.sendall(b"\x10" + len(packet).to_bytes() + packet)
        return connection.recv(100)


def test_plain_text_does_not_reach_the_device_listeners(broker_server: Mosquitto) -> None:
    for port in (broker_server.tls_port, broker_server.password_port):
        assert refused(account(broker_server, "gateway", "x"), port)


@pytest.mark.parametrize("listener", ["tls_port", "password_port"])
@pytest.mark.parametrize("old", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"])
def test_old_cipher_is_refused(broker_server: Mosquitto, listener: str, old: str) -> None:
    port = getattr(broker_server, listener)
    place = credentials(broker_server, EV_1)
    _cipher_of_tls12(port, place, "ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _cipher_of_tls12(port, place, f"{old}:@SECLEVEL=0")


def _cipher_of_tls12(port: int, place: Path, ciphers: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(place / "device.crt", place / "device.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain):
        pass


def certificate_of(address: tuple[str, int]) -> str | None:
    """The broker's certificate. None while it does not fit the key: the fixture's reload came between the two files."""
    try:
        return ssl.get_server_certificate(address)
    except ssl.SSLError:
        return None


@pytest.mark.parametrize("listener", ["tls_port", "password_port"])
def test_renewed_certificate_of_the_broker_is_served_after_a_reload(broker_server: Mosquitto, listener: str) -> None:
    address = ("127.0.0.1", getattr(broker_server, listener))
    before = ssl.get_server_certificate(address)
    provisioning.renew_server(broker_server.provisioning, provisioning.server_hosts(broker_server.provisioning))
    for path in broker_server.provisioning.broker.iterdir():
        give_to_service(path)
    assert broker.reload(broker_server.provisioning)
    wait_until(lambda: certificate_of(address) not in (None, before), "the new certificate is served")
