"""The topics: what they are called, how they are made, and how the embedded broker is kept small."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewPartitions, NewTopic

from payments.errors import UsageError
from payments.systems.stream.client import LARGEST_MESSAGE_BYTES, admin, is_given, reach

CHANGES = "payments.changes"
"""Every change of every table, all those of a tenant in one partition; and barriers."""
DEAD_LETTERS = "payments.dead_letters"
"""What no consumer could take, by key."""
EVENTS = "payments.events."
"""The outbox, a topic for each type of object: this, and the type."""
PARTITIONS = 4
_ANSWER_SECONDS = 10.0
# The embedded broker keeps all it has in memory and writes it again and again.
_MOST_KEPT = 100_000
# Asking again would end as before.
_REFUSALS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.TOPIC_EXCEPTION,
)
_RETENTION_MS = 7 * 24 * 3600 * 1000


def make_topics(names: Iterable[str] = (CHANGES, DEAD_LETTERS)) -> dict[str, int]:
    """Make the topics that are missing, and return how many partitions each has.

    A topic that exists keeps its partitions when it has more than ours would: others may count on them.

    Raises:
        UnreachableError: the broker does not answer.
        UsageError: it refuses to make one.
        KafkaException: it went away meanwhile.
    """
    client = admin()
    found = reach(client).topics
    wanted = list(names)
    missing = [name for name in wanted if name not in found]
    if missing:
        _settle(client.create_topics([_new(name) for name in missing]))
    # A broker that makes topics on a first message makes them with one partition.
    narrow = [NewPartitions(name, PARTITIONS) for name in wanted if name in found and _width(found[name]) < PARTITIONS]
    if narrow:
        _settle(client.create_partitions(narrow))
    return {name: max(PARTITIONS, _width(found[name]) if name in found else 0) for name in wanted}


def keep_small(client: AdminClient, upto: Iterable[TopicPartition]) -> None:
    """Let the embedded broker forget old messages, below the given offsets; a given broker has a retention of its own.

    The newest stay, as many as fit into its memory.
    """
    if is_given():
        return
    cuts = [
        TopicPartition(place.topic, place.partition, place.offset - _MOST_KEPT // PARTITIONS)
        for place in upto
        if place.offset > _MOST_KEPT // PARTITIONS
    ]
    if cuts:
        for answer in client.delete_records(cuts).values():
            answer.result(_ANSWER_SECONDS)


def _new(name: str) -> NewTopic:
    # Minus one: as many copies as the broker makes by default.
    return NewTopic(
        name,
        num_partitions=PARTITIONS,
        replication_factor=-1 if is_given() else 1,
        config={"max.message.bytes": str(LARGEST_MESSAGE_BYTES), "retention.ms": str(_RETENTION_MS)},
    )


def _width(topic: TopicMetadata) -> int:
    return len(topic.partitions)


def _settle(answers: Mapping[str, Future[Any]]) -> None:
    for name, answer in answers.items():
        try:
            answer.result(_ANSWER_SECONDS)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() in _REFUSALS:
                raise UsageError(f"The broker does not make the topic {name}: {reason.str()}.") from error
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
