"""Relay and source with a broker that is reached by TLS, with SCRAM, and named in a list of several."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bridge.formats.contract_json import encode
from bridge.settings.kafka import KafkaTopicSettings
from bridge.streams.kafka_client import KafkaUnavailable
from bridge.streams.kafka_setup import set_up
from local.kafka import Certificate, Kafka
from local.mosquitto import Mosquitto
from local.ports import free_port
from mosquitto import authority
from tests.devices import publish_with_paho
from tests.kafka.test_kafka import serving
from tests.kafka_records import Topic
from tests.readings import minutes
from tests.relays import RelayProcess, relaying
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A CA, and the certificate of a broker."""
    directory = tmp_path_factory.mktemp("certificate")
    key, ca = authority.create()
    issued = authority.issue_server(authority.load(key, ca), ["127.0.0.1"], timedelta(days=1))
    files = Certificate(directory / "ca.pem", directory / "broker.pem")
    files.authority.write_bytes(ca)
    files.server.write_bytes(issued.key + issued.certificate)
    return files


@pytest.fixture(scope="module")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory, jars: Path, certificate: Certificate) -> Iterator[Kafka]:
    """A broker that is reached by TLS, and to which clients log in with SCRAM-SHA-512."""
    broker = Kafka(tmp_path_factory.mktemp("secure") / "broker", jars, certificate)
    broker.start()
    yield broker
    broker.stop()


def at(kafka: Kafka, certificate: Certificate, **others: object) -> dict[str, object]:
    """The settings of a client, to which the first of two brokers does not answer."""
    account, _, host = kafka.url.partition("@")
    return {
        "kafka_url": f"{account}@127.0.0.1:{free_port()},{host}",
        "kafka_sasl": "SCRAM-SHA-512",
        "kafka_ca_file": certificate.authority,
        "kafka_topic": "fleet-secure",
        **others,
    }


async def test_readings_pass_relay_and_source_though_the_first_broker_of_the_list_is_down(
    broker: Mosquitto, secure_kafka: Kafka, certificate: Certificate, database_url: str, db: Db
) -> None:
    sent = [(r.kind.topic(r.device), encode(r)) for r in minutes("EV_1", 50)]
    settings = at(secure_kafka, certificate)
    topic = Topic(secure_kafka.url, "fleet-secure", "SCRAM-SHA-512", certificate.authority)
    async with (
        relaying(broker, relay_target="kafka", **settings),
        serving(secure_kafka, topic, database_url, **settings),
    ):
        await publish_with_paho(broker.url, "5", sent)
        await until(lambda: _has(db, len(sent)), timeout_s=60)


async def _has(db: Db, count: int) -> bool:
    return bool(await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == count)


def _with_wrong_password(kafka: Kafka) -> str:
    return kafka.url.replace("fleet:", "fleet:x")


async def test_the_error_names_the_cause(secure_kafka: Kafka, certificate: Certificate, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(authority.create()[1])
    account = secure_kafka.url.partition("@")[0]
    wrong: dict[str, dict[str, object]] = {
        "invalid credentials": {"kafka_url": _with_wrong_password(secure_kafka)},
        "certificate could not be verified": {"kafka_ca_file": other},
        "Unsupported SASL mechanism": {"kafka_sasl": "SCRAM-SHA-256"},
        "Connection refused": {"kafka_url": f"{account}@127.0.0.1:{free_port()},127.0.0.1:{free_port()}"},
    }

    async def refused(cause: str, settings: dict[str, object]) -> None:
        asked = KafkaTopicSettings.model_validate(at(secure_kafka, certificate, **settings))
        with pytest.raises(KafkaUnavailable, match=cause) as error:
            await asyncio.to_thread(set_up, asked)
        assert "\n" not in str(error.value)

    await asyncio.gather(*(refused(cause, settings) for cause, settings in wrong.items()))


async def test_relay_with_a_wrong_password_says_so_and_tries_again(
    tmp_path: Path, broker: Mosquitto, secure_kafka: Kafka, certificate: Certificate
) -> None:
    settings = at(secure_kafka, certificate, kafka_url=_with_wrong_password(secure_kafka))
    relay = RelayProcess(tmp_path, broker, "a", {"relay_target": "kafka", **settings})
    relay.process.start()
    try:
        await until(lambda: _says(relay, "invalid credentials"), timeout_s=60)
        assert relay.process.running
        said = next(line for line in relay.process.log_tail().splitlines() if "invalid credentials" in line)
        assert "again_in_s" in said
        assert secure_kafka.url.split(":")[2].partition("@")[0] not in said  # the password
    finally:
        relay.process.kill()


async def _says(relay: RelayProcess, cause: str) -> bool:
    status, text = await relay.get("/readyz")
    return status == 503 and cause in text
