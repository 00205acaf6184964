"""Changes over a broker: killed, emptied, stopped, or written to by strangers, it gives the log exactly, and once."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from ingestion.cdc import broker
from ingestion.cdc.assembly import Refill
from ingestion.cdc.batches import LogBatch
from ingestion.cdc.broker import GROUP, Broker
from ingestion.cdc.envelope import BARRIER
from ingestion.cdc.totals import topic_totals
from ingestion.landing import Staged, landing
from ingestion.quarantine import list_quarantine
from payments.systems.stream import server
from payments.systems.stream.client import admin, consumer_properties, producer_properties
from payments.systems.stream.topics import CHANGES, DEAD_LETTERS, PARTITIONS
from tests.cdc.log_batches import CONTRACT, Log, changes_in, events
from tests.systems.brokers import kill_broker

pytestmark = pytest.mark.usefixtures("platform_home")
SECONDS = 60


@pytest.fixture
def stream(broker_home: Path) -> str:
    """An embedded broker without a message, and the name of a log."""
    assert not broker_home.exists()
    server.start()
    return "a log"


class Flow:
    """What a supervisor does: publish the log, land what comes, publish again from there when that is asked for."""

    def __init__(self, stream: str, log: Log) -> None:
        self.broker = Broker(stream)
        self.log = log
        self.landed: list[LogBatch] = []
        self.refills: list[Refill] = []

    @property
    def reached(self) -> int:
        return self.landed[-1].end_lsn if self.landed else self.log.start

    def publish(self, start: int, most: int = 5) -> None:
        for batch in self.log.batches(start, most):
            assert self.broker.publish(batch)

    def land(self) -> None:
        """Take until all of the log has landed."""
        until = time.monotonic() + SECONDS
        taken = self.broker.batches((1, self.reached), lambda: time.monotonic() > until)
        while self.reached < self.log.end:
            found = next(taken)
            if isinstance(found, Refill):
                self.refills.append(found)
                self.publish(self.reached)
            elif found is not None:
                self.landed.append(found)
        taken.close()

    def assert_exact(self) -> None:
        assert changes_in(self.landed) == changes_in([self.log.batch(self.log.start, self.log.end)])


def new_log(seed: int, transactions: int) -> Log:
    return Log(Random(seed)).grow(transactions)  # noqa: S311 (a repeatable draw)


def on_topic(topic: str) -> list[tuple[int, str, dict[str, str], str]]:
    """Return every message of a topic: partition, key, headers, value."""
    found = []
    consumer = Consumer({**consumer_properties("tests")})
    width = len(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    for partition in range(width):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        consumer.assign([TopicPartition(topic, partition, low)])
        left = high - low
        while left:
            for message in consumer.consume(left, timeout=5):
                headers = {name: value.decode() for name, value in message.headers() or []}  # type: ignore[union-attr,misc]
                found.append((partition, message.key().decode(), headers, message.value().decode()))  # type: ignore[union-attr]
                left -= 1
    consumer.close()
    return found


def hint(offset: int) -> None:
    """Say that the loader came to this offset."""
    consumer = Consumer({**consumer_properties(GROUP)})
    places = [TopicPartition(CHANGES, partition, offset) for partition in range(PARTITIONS)]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


def test_what_is_published_comes_back_as_it_was(stream: str) -> None:
    flow = Flow(stream, new_log(1, 60))
    batches = list(flow.log.batches(flow.log.start))
    for batch in batches:
        assert flow.broker.publish(batch)
    flow.land()
    assert [(batch.start_lsn, batch.end_lsn, batch.committed_at, batch.transactions) for batch in flow.landed] == [
        (batch.start_lsn, batch.end_lsn, batch.committed_at, batch.transactions) for batch in batches
    ]
    flow.assert_exact()
    assert flow.refills == []

    # Partition by partition, a tenant has one, and its changes stand there in their order.
    partitions: dict[str, set[int]] = {}
    last: dict[int, str] = {}
    for partition, key, headers, value in on_topic(CHANGES):
        if headers["op"] == BARRIER.decode():
            last.pop(partition, None)
            continue
        envelope = json.loads(value)
        tenant, entity = key.split("|")[:2]
        assert (entity, envelope["op"], envelope["position"]) == (headers["entity"], headers["op"], headers["position"])
        assert envelope["schema_version"] == int(headers["schema_version"]) == CONTRACT[entity].schema_version
        assert headers["position"] > last.get(partition, "")
        last[partition] = headers["position"]
        if envelope["op"] != "t":
            partitions.setdefault(tenant, set()).add(partition)
    assert len(partitions) == 5
    assert all(len(found) == 1 for found in partitions.values())
    assert len(set.union(*partitions.values())) > 1


def test_what_is_published_again_lands_once(stream: str) -> None:
    flow = Flow(stream, new_log(2, 40))
    for _ in range(3):
        flow.publish(flow.log.start)
    flow.land()
    flow.assert_exact()
    # Another loader begins where this one came to, and one that knows no better, with the oldest message.
    flow.log.grow(10)
    flow.publish(flow.landed[3].end_lsn)
    flow.land()
    flow.assert_exact()
    hint(0)
    again = Flow(stream, flow.log)
    again.land()
    again.assert_exact()
    assert flow.refills == again.refills == []


def test_a_hint_beyond_the_end_leaves_nothing_out(stream: str) -> None:
    flow = Flow(stream, new_log(3, 20))
    hint(10**6)
    flow.publish(flow.log.start)
    flow.land()
    flow.assert_exact()
    assert flow.refills == []


def test_a_killed_broker_loses_nothing_for_us(stream: str, full_size: bool) -> None:
    flow = Flow(stream, new_log(4, 30))
    for _ in range(10 if full_size else 2):
        flow.publish(flow.reached)
        kill_broker()  # at once: the end of what it acknowledged is on no disk yet
        server.start()
        flow.land()
        flow.log.grow(30)
        flow.publish(flow.reached)
        flow.land()
        flow.log.grow(5)
    assert flow.refills, "it lost what it had acknowledged"
    flow.publish(flow.reached)
    flow.land()
    flow.assert_exact()


def test_deleted_messages_are_published_again(stream: str) -> None:
    flow = Flow(stream, new_log(5, 40))
    flow.publish(flow.log.start)
    cut = [TopicPartition(CHANGES, partition, 7) for partition in range(PARTITIONS)]
    client = admin()
    for answer in client.delete_records(cut).values():
        answer.result(10)
    flow.land()
    assert flow.refills
    flow.assert_exact()


def test_while_the_broker_is_away_publishing_waits(stream: str) -> None:
    flow = Flow(stream, new_log(6, 30))
    batches = list(flow.log.batches(flow.log.start))
    assert flow.broker.publish(batches[0])
    stopping = threading.Event()
    server.stop()
    with ThreadPoolExecutor(max_workers=1) as pool:
        assert not pool.submit(flow.broker.publish, batches[1], lambda: True).result(SECONDS), "told to stop"
        waiting = pool.submit(lambda: [flow.broker.publish(batch, stopping.is_set) for batch in batches[1:]])
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        server.start()
        assert all(waiting.result(SECONDS))
    flow.land()
    flow.assert_exact()


def test_strangers_are_put_aside_and_block_nothing(stream: str) -> None:
    flow = Flow(stream, new_log(7, 10))
    stranger = Producer({**producer_properties()})
    position = "00000001/0000000000001000/0000000000001000/00000000"
    known: dict[str, str | bytes | None] = {
        "entity": "charges",
        "op": "u",
        "schema_version": str(CONTRACT["charges"].schema_version),
        "position": position,
        "batch": "x",
    }
    stranger.produce(CHANGES, key="a", value="hello 4242424242424242", partition=0)
    stranger.produce(CHANGES, key="b", value="{}", partition=1, headers={**known, "entity": "secrets"})
    stranger.produce(CHANGES, key="c", value="{broken", partition=2, headers=known)
    stranger.produce(CHANGES, key="d", value="{}", partition=3, headers={**known, "op": "barrier"})
    stranger.flush()
    flow.publish(flow.log.start)
    flow.land()
    flow.assert_exact()
    flow.log.grow(5)  # what bore the name of a batch is looked at when a later one is whole
    flow.publish(flow.reached, most=1)
    flow.land()
    flow.assert_exact()
    aside = {record.record for record in list_quarantine(source="stream")}
    assert aside == {"hello ************4242", "{}", "{broken"}
    letters = on_topic(DEAD_LETTERS)
    assert {(key, headers["rule"], value) for _, key, headers, value in letters} == {
        ("a", "foreign_message", "hello ************4242"),
        ("b", "foreign_message", "{}"),
        ("", "foreign_message", "{broken"),
        ("d", "foreign_message", "{}"),
    }


def test_what_the_landing_writer_refuses_is_published_by_key(stream: str) -> None:
    log = Log(Random(8))  # noqa: S311
    log.commit(("coupons", "c", {"merchant_id": "acct_1", "coupon_id": "co_1", "_rule": "odd", "_reason": "it is odd"}))
    batch = log.batch(log.start, log.end)
    with landing("oltp", "log", origin="") as files:
        files.con.register("logged", batch.changes["coupons"])
        files.con.execute(
            'create view staged as select 0::bigint as _ordinal, *, \'{"merchant_id":"acct_1",'
            '"coupon_id":"co_1"}\' as _record from logged'
        )
        files.land_log(Staged(CONTRACT["coupons"], "staged"))
        report = files.commit()
    Broker(stream).bury_refused(batch, report)
    ((_, key, headers, _),) = on_topic(DEAD_LETTERS)
    assert key == 'acct_1|coupons|["acct_1","co_1"]'
    assert headers == {
        "rule": "odd",
        "reason": "it is odd",
        "position": batch.changes["coupons"]["_position"][0].as_py(),
    }


def test_events_have_topics_of_their_own(stream: str) -> None:
    log = new_log(9, 1)
    row = {"merchant_id": "acct_1", "object_id": "ch_1", "object_version": "2", "created_at": "2026-03-10 12:00:00+00"}
    written = [
        {
            **row,
            "event_id": "evt_1",
            "event_type": "charge.succeeded",
            "payload": '{"amount_minor": 5}',
            "_position": "1",
        },
        {**row, "event_id": "evt_2", "event_type": "refund.failed", "payload": "{}", "_position": "2"},
        {**row, "event_id": "evt_3", "event_type": "charge.captured", "payload": "{}", "_position": "3"},
    ]
    batch = log.batch(log.start, log.end)
    Broker(stream).publish(
        LogBatch(1, batch.start_lsn, batch.end_lsn, batch.committed_at, 1, batch.changes, events(written))
    )
    charges = on_topic("payments.events.charge")
    assert [(key, headers["event_id"], headers["position"]) for _, key, headers, _ in charges] == [
        ("acct_1|ch_1", "evt_1", "1"),
        ("acct_1|ch_1", "evt_3", "3"),
    ]
    event = json.loads(charges[0][3])
    assert (event["event_type"], event["payload"]) == ("charge.succeeded", {"amount_minor": 5})
    assert [headers["event_id"] for _, _, headers, _ in on_topic("payments.events.refund")] == ["evt_2"]


def test_the_topic_is_counted_up_to_a_place(stream: str) -> None:
    assert topic_totals(stream) is None
    flow = Flow(stream, new_log(10, 30))
    flow.publish(flow.log.start)
    flow.publish(flow.log.start)  # what is there twice counts once
    totals = topic_totals(stream)
    assert totals is not None
    assert (totals.start_lsn, totals.end_lsn) == (flow.log.start, flow.log.end)
    whole = flow.log.batch(flow.log.start, flow.log.end)
    assert {name: found.changes for name, found in totals.entities.items()} == {
        name: table.num_rows for name, table in whole.changes.items()
    }
    place = flow.log.transactions[9].end_lsn
    part = topic_totals(stream, place)
    assert part is not None
    assert part.end_lsn == place
    assert {name: found.changes for name, found in part.entities.items()} == {
        name: table.num_rows for name, table in flow.log.batch(flow.log.start, place).changes.items()
    }
    assert part.entities["charges"].checksum < totals.entities["charges"].checksum
    assert topic_totals("another log") is None


def test_a_batch_published_too_late_blocks_nothing(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_MOST_UNDER_WAY", 50)
    monkeypatch.setattr(broker, "_LOST_SECONDS", 2.0 * SECONDS)  # or it would be asked for again
    flow = Flow(stream, new_log(11, 120))
    late = flow.log.batch(flow.log.transactions[-10].end_lsn, flow.log.end)
    until = time.monotonic() + SECONDS
    with closing(flow.broker.batches((1, flow.log.start), lambda: time.monotonic() > until)) as taken:
        flow.broker.publish(late)
        assert isinstance(next(found for found in taken if found is not None), Refill)
        flow.broker.publish(late)  # it was under way when the refill was asked for
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(flow.publish, flow.log.start)
            while flow.reached < flow.log.end:
                found = next(taken)
                if found is not None:
                    assert isinstance(found, LogBatch)
                    flow.landed.append(found)
            publishing.result(SECONDS)
    flow.assert_exact()


def test_a_lost_refill_is_noticed_while_messages_keep_coming(stream: str) -> None:
    flow = Flow(stream, new_log(12, 400))
    late = list(flow.log.batches(flow.log.transactions[0].end_lsn, most=1))
    is_over = threading.Event()

    def keep_publishing() -> None:
        for batch in late:
            if is_over.is_set():
                return
            flow.broker.publish(batch)
            is_over.wait(0.05)

    with ThreadPoolExecutor(1) as pool, closing(flow.broker.batches((1, flow.log.start))) as taken:
        publishing = pool.submit(keep_publishing)
        assert isinstance(next(found for found in taken if found is not None), Refill)
        # Nobody publishes from there, as if the broker had lost it.
        again = next(found for found in taken if found is not None)
        is_over.set()
        publishing.result(SECONDS)
    assert again == Refill("the broker lost the end of what it had acknowledged")
