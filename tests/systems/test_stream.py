"""The broker as a store: started twice, in the way of others, killed, out of reach, and stopped."""

import os
import socket
from pathlib import Path

import pytest
from confluent_kafka.cimpl import NewTopic

from payments.errors import UnreachableError, UsageError
from payments.settings import settings
from payments.systems.processes import free_port
from payments.systems.stream import server
from payments.systems.stream.client import admin, properties
from payments.systems.stream.noida import embedded_broker
from payments.systems.stream.topics import CHANGES, DEAD_LETTERS, PARTITIONS, make_topics
from tests.systems.brokers import kill_broker


def test_the_embedded_broker_from_start_to_end(broker_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (server.is_wanted(), server.store_status()) == (False, None)
    server.start()
    running = embedded_broker().running()
    server.start()
    assert running is not None
    assert embedded_broker().running() == running, "the second start changes nothing"
    found = server.store_status()
    assert found is not None
    assert found.is_running
    assert any(text.startswith("no durability") for text in found.missing)
    assert set(admin().list_topics(timeout=10).topics) >= {CHANGES, DEAD_LETTERS}

    port = os.environ["PAYMENTS_KAFKA_PORT"]
    monkeypatch.setenv("PAYMENTS_KAFKA_PORT", str(free_port()))
    settings.cache_clear()
    with pytest.raises(UsageError, match=f"runs on port {port}"):
        server.start()
    monkeypatch.setenv("PAYMENTS_KAFKA_PORT", port)
    settings.cache_clear()

    kill_broker()
    down = server.store_status()
    assert down is not None, "one that was killed is wanted still"
    assert not down.is_running
    assert down.missing[0].endswith("run payments up --stream.")
    server.start()
    server.stop()
    assert (server.is_wanted(), embedded_broker().running()) == (False, None)
    server.destroy()
    assert not (broker_home / "stream" / "data").exists()


def test_a_taken_port_gives_one_line_that_names_the_variable(broker_home: Path) -> None:
    with socket.socket() as occupier:
        occupier.bind(("127.0.0.1", settings().kafka_port))
        occupier.listen()
        with pytest.raises(UsageError, match="taken by another program: set PAYMENTS_KAFKA_PORT to"):
            server.start()
    assert broker_home.exists()


def test_a_topic_that_a_first_message_made_gets_its_partitions(broker_home: Path) -> None:
    server.start()
    name = "payments.events.charge"
    client = admin()
    client.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])[name].result(10)
    assert make_topics([name]) == {name: PARTITIONS}
    assert len(client.list_topics(timeout=10).topics[name].partitions) == PARTITIONS
    assert broker_home.exists()


def test_a_given_broker_is_used_and_told_of(broker_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start()
    monkeypatch.setenv("PAYMENTS_KAFKA_BOOTSTRAP", f"127.0.0.1:{settings().kafka_port}")
    settings.cache_clear()
    server.start()
    server.stop()
    found = server.store_status()
    assert found is not None
    assert found.is_running, "a given broker is never stopped"
    assert found.missing == (
        "no TLS: connections are not encrypted",
        "no second broker: nothing takes over when it fails",
    )
    monkeypatch.setenv("PAYMENTS_KAFKA_BOOTSTRAP", f"127.0.0.1:{free_port()}")
    settings.cache_clear()
    with pytest.raises(UnreachableError, match=r"No broker answers at PAYMENTS_KAFKA_BOOTSTRAP .* start it, or unset"):
        server.start()
    assert broker_home.exists()


def test_a_topic_that_the_broker_does_not_make_is_one_line(broker_home: Path) -> None:
    server.start()
    with pytest.raises(UsageError, match=r"The broker does not make the topic payments.events.a b: "):
        make_topics(["payments.events.a b"])
    assert broker_home.exists()


@pytest.mark.parametrize("given", ["{", "[]", '{"security.protocol": 1}'])
def test_properties_that_are_none_are_one_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENTS_KAFKA_PROPERTIES", given)
    settings.cache_clear()
    with pytest.raises(UsageError, match="PAYMENTS_KAFKA_PROPERTIES is no JSON object of texts"):
        properties()
    monkeypatch.setenv("PAYMENTS_KAFKA_PROPERTIES", '{"security.protocol": "SASL_SSL"}')
    settings.cache_clear()
    assert properties()["security.protocol"] == "SASL_SSL"
    monkeypatch.setenv("PAYMENTS_KAFKA_PROPERTIES", '{"security.protocl": "SASL_SSL"}')
    settings.cache_clear()
    with pytest.raises(UsageError, match=r"PAYMENTS_KAFKA_PROPERTIES .* \"security.protocl\""):
        admin()
    monkeypatch.undo()
    settings.cache_clear()
