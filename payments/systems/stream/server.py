"""Start, stop and describe the broker: a given Kafka, or the embedded one."""

from datetime import UTC, datetime

from confluent_kafka.admin._metadata import ClusterMetadata

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.folders import folder_bytes, remove_server_folder
from payments.systems.status import StoreStatus
from payments.systems.stream.client import admin, bootstrap, is_given, properties, reach
from payments.systems.stream.noida import embedded_broker, noida_version
from payments.systems.stream.topics import make_topics

STORE = "Kafka"


def is_wanted() -> bool:
    """Say whether changes go through a broker: one is given, or the embedded one was started and not stopped since.

    One that was killed is wanted still: nobody decided to do without.
    """
    return is_given() or embedded_broker().pid_file.exists()


def start() -> None:
    """Start the embedded broker, nothing when it runs; a given one is only checked. Make the topics that are missing.

    Raises:
        UsageError: the port is taken, the broker does not start, or the given one cannot be reached.
    """
    if not is_given():
        broker = embedded_broker()
        with processes.exclusively(broker.lock_file):
            broker.start(settings().kafka_port)
    make_topics()


def stop() -> None:
    """Stop the embedded broker and wait until it is gone; nothing when it does not run or a broker is given."""
    if is_given():
        return
    broker = embedded_broker()
    with processes.exclusively(broker.lock_file):
        broker.stop()


def destroy() -> None:
    """Stop the embedded broker and delete all of its data; a given one is left alone."""
    if is_given():
        return
    broker = embedded_broker()
    with processes.exclusively(broker.lock_file):
        broker.stop()
        remove_server_folder(settings().home, broker.folder.name)


def store_status() -> StoreStatus | None:
    """Return what the broker is, where, and what it lacks; None when changes go without one."""
    if not is_wanted():
        return None
    try:
        return _describe(reach(admin()))
    except UsageError as error:
        return StoreStatus(STORE, False, None, _where(), None, None, (str(error),))


def _where() -> str:
    return "PAYMENTS_KAFKA_BOOTSTRAP" if is_given() else bootstrap()


def _describe(found: ClusterMetadata) -> StoreStatus:
    where = ",".join(sorted(f"{broker.host}:{broker.port}" for broker in found.brokers.values()))
    missing = [
        *([] if _uses_tls() else ["no TLS: connections are not encrypted"]),
        *(["no second broker: nothing takes over when it fails"] if len(found.brokers) < 2 else []),
    ]
    if is_given():
        return StoreStatus(STORE, True, None, where, None, None, tuple(missing))
    broker = embedded_broker()
    missing += [
        "no durability: a kill loses its last two seconds; changes are then read from PostgreSQL again",
        "no authentication: any local program may read it",
        "no compaction",
    ]
    since = datetime.fromtimestamp(broker.pid_file.stat().st_mtime, UTC)
    version = f"Noida {noida_version()}"
    return StoreStatus(STORE, True, version, where, since, folder_bytes(broker.data), tuple(missing))


def _uses_tls() -> bool:
    return properties().get("security.protocol", "PLAINTEXT").upper().endswith("SSL")
