"""How programs reach the broker: the given one or the embedded one, and what they may expect of it."""

import json
import logging
from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata

from payments.errors import UnreachableError, UsageError
from payments.settings import settings
from payments.systems.processes import LOOPBACK

LARGEST_MESSAGE_BYTES = 128 * 1024 * 1024
"""A row of a table with its large values has to fit into one message."""
# The embedded broker answers a fetch with all that it has of a partition, whatever the client asks for.
_LARGEST_ANSWER_BYTES = 2_000_000_000
_REACH_SECONDS = 5.0

_log = logging.getLogger("payments.stream")
_log.addHandler(logging.NullHandler())  # what matters is raised; the client's own lines are for whoever listens


def is_given() -> bool:
    """Say whether a broker is given; else it is the embedded one."""
    return settings().kafka_bootstrap is not None


def bootstrap() -> str:
    """Return where the broker is reached first: host and port, several joined by commas."""
    return settings().kafka_bootstrap or f"{LOOPBACK}:{settings().kafka_port}"


def properties() -> dict[str, str]:
    """Return the properties that every client needs.

    Raises:
        UsageError: ``PAYMENTS_KAFKA_PROPERTIES`` is no JSON object of texts.
    """
    given = settings().kafka_properties
    try:
        extra = {} if given is None else json.loads(given.get_secret_value())
    except json.JSONDecodeError:
        extra = None
    if not isinstance(extra, dict) or not all(isinstance(value, str) for value in extra.values()):
        raise UsageError('PAYMENTS_KAFKA_PROPERTIES is no JSON object of texts, such as {"security.protocol": "SSL"}.')
    return {"bootstrap.servers": bootstrap(), **extra}


def producer_properties() -> Mapping[str, object]:
    """Return the properties of a producer that never gives a message up, never swaps two, and repeats none."""
    return {
        **properties(),
        "logger": _log,
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": 0,
        "message.max.bytes": LARGEST_MESSAGE_BYTES,
        "compression.type": "zstd",
        "linger.ms": 5,
        "reconnect.backoff.max.ms": 500,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 2 * LARGEST_MESSAGE_BYTES // 1024,
        "delivery.report.only.error": True,
    }


def consumer_properties(group: str) -> Mapping[str, object]:
    """Return the properties of a consumer that commits its offsets itself, and reads again from the beginning rather
    than leave a message out.
    """
    return {
        **properties(),
        "logger": _log,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 50,
        "fetch.message.max.bytes": LARGEST_MESSAGE_BYTES,
        "receive.message.max.bytes": _LARGEST_ANSWER_BYTES,
        "reconnect.backoff.max.ms": 500,
    }


def admin() -> AdminClient:
    """Return a client that makes topics and tells of them.

    Raises:
        UsageError: ``PAYMENTS_KAFKA_PROPERTIES`` has a property that the client does not know, or a wrong value.
    """
    try:
        return AdminClient(dict(properties()), logger=_log)
    except KafkaException as error:
        raise UsageError(f"PAYMENTS_KAFKA_PROPERTIES is no set of client properties: {error.args[0].str()}.") from error


def reach(client: AdminClient) -> ClusterMetadata:
    """Return what the broker says of itself.

    Raises:
        UnreachableError: it does not answer.
    """
    try:
        return client.list_topics(timeout=_REACH_SECONDS)
    except KafkaException as error:
        where = "PAYMENTS_KAFKA_BOOTSTRAP" if is_given() else f"the embedded broker on port {settings().kafka_port}"
        remedy = "start it, or unset the variable to do without" if is_given() else "run payments up --stream"
        raise UnreachableError(f"No broker answers at {where} ({error.args[0].str()}): {remedy}.") from error
