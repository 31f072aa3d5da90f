"""Brings the topic into being, and refuses one that would lose readings."""

import structlog

from bridge.errors import Misconfigured
from bridge.settings.kafka import KafkaTopicSettings
from bridge.streams.kafka_client import Cluster, Topic, create_topic, topic_of

log = structlog.get_logger(__name__)

_SAFE_REPLICAS = 3


def cluster_of(settings: KafkaTopicSettings) -> Cluster:
    """The cluster of the settings."""
    return Cluster(settings.kafka_url, settings.kafka_sasl, settings.kafka_ca_file)


def set_up(settings: KafkaTopicSettings) -> None:
    """Create the topic unless it exists. Blocks.

    Raises `KafkaUnavailable`, and `Misconfigured` when the topic cannot keep the promise.
    """
    cluster, name = cluster_of(settings), settings.kafka_topic
    topic = topic_of(cluster, name)
    if topic is None:
        replicas = settings.kafka_replicas
        options = {"min.insync.replicas": str(max(1, replicas - 1)), "cleanup.policy": "delete"}
        create_topic(cluster, name, Topic(settings.kafka_partitions, replicas, options))
        log.info("topic created", topic=name, partitions=settings.kafka_partitions, replicas=replicas)
    else:
        _require_safety(topic, settings)


def _require_safety(topic: Topic, settings: KafkaTopicSettings) -> None:
    name = settings.kafka_topic
    if topic.replicas != settings.kafka_replicas:
        raise Misconfigured(
            f"FLEET_KAFKA_REPLICAS: the topic {name} has {topic.replicas} replicas instead of "
            f"{settings.kafka_replicas}; set it to {topic.replicas}, or reassign the topic"
        )
    if "compact" in topic.options.get("cleanup.policy", ""):
        raise Misconfigured(
            f"FLEET_KAFKA_TOPIC: the topic {name} is compacted, which keeps only the last reading of a device: set "
            "its cleanup.policy to delete"
        )
    if topic.replicas >= _SAFE_REPLICAS and int(topic.options.get("min.insync.replicas", "1")) < 2:
        raise Misconfigured(
            f"FLEET_KAFKA_TOPIC: the topic {name} acknowledges what one replica has: set its min.insync.replicas to 2"
        )
    if topic.options.get("unclean.leader.election.enable") == "true":
        raise Misconfigured(
            f"FLEET_KAFKA_TOPIC: the topic {name} may lose acknowledged records: set its "
            "unclean.leader.election.enable to false"
        )
