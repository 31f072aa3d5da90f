"""S2, S3 from Kafka: a backlog in a topic of one broker, compared with the same backlog in Mosquitto."""

import asyncio
import sys

from confluent_kafka import Producer

from bridge.streams.kafka_client import Cluster
from tests.bench.end_to_end import DEVICES, Run, drain, drained
from tests.bench.load import Load, this_minute
from tests.bench.machine import KafkaTopic, Machine
from tests.bench.report import Figure, median_ratio
from tests.kafka_records import Topic

_PARTITIONS = 12  # the bridge's default


async def s2_s3(machine: Machine) -> list[Figure]:
    """The rate at which one bridge drains the backlog, and its CPU a reading."""
    load = Load(150_000 if machine.quick else 1_000_000, DEVICES, this_minute())
    with machine.kafka() as broker:
        if broker is None:
            sys.stderr.write("   needs Java and the jars of a Kafka broker: run make test-kafka once\n")
            return []
        runs = [
            (await _drain(machine, KafkaTopic(broker, f"fleet-{n}"), load), await drain(machine, load))
            for n in range(3)
        ]
    ratio, rounds = median_ratio([(kafka.rate, mqtt.rate) for kafka, mqtt in runs])
    cpu, cpu_rounds = median_ratio([(kafka.cpu_us, mqtt.cpu_us) for kafka, mqtt in runs])
    kafka, mqtt = runs[-1]
    measure = f"backlog of {load.messages:,}, Kafka : Mosquitto"
    made_of = f"{kafka.rate:,.0f}/s : {mqtt.rate:,.0f}/s; {rounds}; peak memory {kafka.memory_mb:.0f} MB"
    cost = f"{kafka.cpu_us:.1f} us : {mqtt.cpu_us:.1f} us; {cpu_rounds}"
    return [
        Figure("S2", measure, ratio, 1.0, 1.5, detail=made_of),
        Figure("S3 Kafka", "bridge CPU from Kafka : MQTT", cpu, 1.5, 0.6, lower=True, detail=cost),
    ]


async def _drain(machine: Machine, topic: KafkaTopic, load: Load) -> Run:
    with machine.database() as url:
        await asyncio.to_thread(_publish, topic, load)
        return await drained(machine, url, topic, load)


def _publish(topic: KafkaTopic, load: Load) -> None:
    """Create the topic, and publish the load, each message with its MQTT topic as key. Raises `RuntimeError`."""
    Topic(topic.broker.url, topic.name).create(_PARTITIONS)
    producer = Producer({**Cluster(topic.broker.url, "PLAIN", None).configuration, "acks": "all", "linger.ms": 20})
    for n in range(load.messages):
        key, value = load.message(n)
        try:
            producer.produce(topic.name, value, key)
        except BufferError:
            producer.poll(1)
            producer.produce(topic.name, value, key)
    if producer.flush(60):
        raise RuntimeError("the backlog was not published")
