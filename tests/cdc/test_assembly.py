"""What comes from a topic, in whatever state, becomes the log again: exactly, or with proof that a part is missing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import duckdb
import pytest

from ingestion.cdc.assembly import Assembly, Refill
from ingestion.cdc.batches import LogBatch
from ingestion.cdc.envelope import Message, barriers, change_messages, decoded, new_batch_name
from tests.cdc.log_batches import CONTRACT, Log, changes_in

PARTITIONS = 3
Topic = list[list[Message]]


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def messages(con: duckdb.DuckDBPyConnection, batch: LogBatch, stream: str = "log") -> list[Message]:
    name, rows = new_batch_name(), [0] * PARTITIONS
    found = list(change_messages(con, batch, CONTRACT, name, PARTITIONS))
    for message in found:
        rows[message.partition] += 1
    return [*found, *barriers(batch, name, stream, rows)]


def take(assembly: Assembly, message: Message, offset: int) -> LogBatch | Refill | None:
    headers = {name: value.encode() if isinstance(value, str) else value or b"" for name, value in message.headers}
    found = assembly.take(message.partition, offset, message.key.encode(), headers, message.value.encode())
    if isinstance(found, LogBatch):
        assembly.landed = (found.epoch, found.end_lsn)
    return found


def written(topic: Topic, sent: list[Message]) -> None:
    for message in sent:
        topic[message.partition].append(message)


def read(assembly: Assembly, topic: Topic, reached: list[int], draw: Random) -> list[LogBatch | Refill]:
    """Read what is left of the partitions, a few messages of one after a few of another.

    Behind the end of a partition stands nothing: the client then begins anew.
    """
    reached[:] = [place if place <= len(kept) else 0 for place, kept in zip(reached, topic, strict=True)]
    found = []
    while left := [partition for partition in range(PARTITIONS) if reached[partition] < len(topic[partition])]:
        partition = draw.choice(left)
        for _ in range(draw.randint(1, 20)):
            if reached[partition] < len(topic[partition]):
                message = topic[partition][reached[partition]]
                reached[partition] += 1
                if (outcome := take(assembly, message, reached[partition] - 1)) is not None:
                    found.append(outcome)
    return found


def test_whatever_a_topic_loses_or_repeats_the_log_comes_out(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, full_size: bool
) -> None:
    for seed in range(500 if full_size else 12):
        try:
            lose_and_repeat(con, tmp_path, Random(seed))  # noqa: S311 (a repeatable draw)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def lose_and_repeat(con: duckdb.DuckDBPyConnection, folder: Path, draw: Random) -> None:
    log = Log(draw).grow(draw.randint(1, 8))
    assembly = Assembly("log", CONTRACT, folder, (1, log.start))
    topic: Topic = [[] for _ in range(PARTITIONS)]
    reached = [0] * PARTITIONS
    landed: list[LogBatch] = []
    for _ in range(draw.randint(0, 4)):
        start = draw.choice([assembly.landed[1], log.start, log.end])
        for batch in log.batches(start):
            is_ours = draw.random() < 0.8
            sent = messages(con, batch if is_ours else replace(batch, changes={}), "log" if is_ours else "another")
            if draw.random() < 0.3:  # the sender dies within
                sent = sent[: draw.randrange(len(sent))]
            if draw.random() < 0.3:  # something is lost
                del sent[draw.randrange(len(sent) + 1) : draw.randrange(len(sent) + 1)]
            written(topic, sent)
            if draw.random() < 0.3:  # the broker loses the end of a partition
                partition = draw.randrange(PARTITIONS)
                del topic[partition][draw.randrange(len(topic[partition]) + 1) :]
            if draw.random() < 0.2:  # the reader goes back
                reached[draw.randrange(PARTITIONS)] = 0
        landed += [found for found in read(assembly, topic, reached, draw) if isinstance(found, LogBatch)]
        log.grow(draw.randint(0, 3))
    # Twice: the first time may fill what the reader takes for read, where the broker gave offsets out again.
    for _ in range(2):
        for batch in log.batches(assembly.landed[1]):
            written(topic, messages(con, batch))
        landed += [found for found in read(assembly, topic, reached, draw) if isinstance(found, LogBatch)]
    assert assembly.landed == (1, log.end), "what is published again from what has landed comes through"
    assert changes_in(landed) == changes_in([log.batch(log.start, log.end)])
    assert [batch.start_lsn for batch in landed] == [log.start, *(batch.end_lsn for batch in landed[:-1])]
    assert all(batch.start_lsn < batch.end_lsn for batch in landed)
    assert assembly.strangers == []


def test_a_missing_change_and_a_missing_batch_are_seen(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    log = Log(Random(1)).grow(20)  # noqa: S311
    first, second = log.batch(log.start, log.transactions[9].end_lsn), log.batch(log.transactions[9].end_lsn, log.end)
    assembly = Assembly("log", CONTRACT, tmp_path, (1, log.start))
    sent = messages(con, first)
    found = [take(assembly, message, 0) for message in (*sent[:3], *sent[4:])]
    assert [outcome for outcome in found if outcome] == [
        Refill(f"the broker has only a part of what changed between {log.start:X} and {first.end_lsn:X}")
    ]
    found = [take(assembly, message, 0) for message in messages(con, second)]
    assert [outcome for outcome in found if outcome] == [
        Refill(f"the broker has nothing between {log.start:X} and {first.end_lsn:X}")
    ]
    found = [take(assembly, message, 0) for batch in (first, second) for message in messages(con, batch)]
    landed = [batch for batch in found if isinstance(batch, LogBatch)]
    assert changes_in(landed) == changes_in([log.batch(log.start, log.end)])


def test_what_is_read_again_counts_once(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    log = Log(Random(6)).grow(10)  # noqa: S311
    assembly = Assembly("log", CONTRACT, tmp_path, (1, log.start))
    whole = log.batch(log.start, log.end)
    sent = messages(con, whole)
    changes = sent[:-PARTITIONS]
    found = [take(assembly, message, 0) for message in (*changes, *changes, *sent, *messages(con, whole))]
    assert not any(isinstance(outcome, Refill) for outcome in found)
    (landed,) = [outcome for outcome in found if isinstance(outcome, LogBatch)]
    assert changes_in([landed]) == changes_in([whole])


def test_the_batches_of_another_log_are_left_alone(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    log = Log(Random(7)).grow(3)  # noqa: S311
    assembly = Assembly("log", CONTRACT, tmp_path, (1, log.start))
    sent = messages(con, log.batch(log.start, log.end), "another")
    assert [outcome for message in sent if (outcome := take(assembly, message, 0))] == []
    assert assembly.landed == (1, log.start)


def test_a_batch_that_reaches_back_is_landed_from_where_it_is_new(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    log = Log(Random(2)).grow(10)  # noqa: S311
    landed = log.transactions[4]
    assembly = Assembly("log", CONTRACT, tmp_path, (1, landed.end_lsn))
    (found,) = [
        outcome
        for message in messages(con, log.batch(log.start, log.end))
        if (outcome := take(assembly, message, 0)) is not None
    ]
    assert isinstance(found, LogBatch)
    # The next transaction commits exactly where the landed one ends, or later: its rows are new.
    assert changes_in([found]) == changes_in([log.batch(landed.end_lsn, log.end)])
    assert (found.start_lsn, found.end_lsn) == (landed.end_lsn, log.end)


def test_an_older_epoch_is_left_out_and_a_newer_one_asks_for_a_snapshot(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    log = Log(Random(3)).grow(3)  # noqa: S311
    sent = messages(con, log.batch(log.start, log.end))
    ahead = Assembly("log", CONTRACT, tmp_path, (2, 0))
    assert [outcome for message in sent if (outcome := take(ahead, message, 0))] == []
    behind = Assembly("log", CONTRACT, tmp_path, (0, log.start))
    assert [outcome for message in sent if (outcome := take(behind, message, 0))] == [
        Refill("epoch 1 begins with a snapshot, which has not landed")
    ]


def test_an_envelope_says_all_that_the_log_does(con: duckdb.DuckDBPyConnection) -> None:
    log = Log(Random(4))  # noqa: S311
    key: dict[str, str | None] = {"merchant_id": "acct_é|1", "charge_id": 'ch_"1'}
    log.commit(
        ("charges", "c", {**key, "status": "", "currency": "null", "failure_code": None}),
        ("charges", "u", {**key, "status": "two\nlines \\ \t 😀", "_unchanged_columns": '["device_id", "ip_city"]'}),
        ("charges", "d", {**key, "_before": '{"charge_id": "ch_\\"1", "merchant_id": "acct_é|1", "status": null}'}),
        ("charges", "c", {**key, "_rule": "missing_column", "_reason": 'the table has no column "x"'}),
        ("charges", "t", {}),
    )
    batch = log.batch(log.start, log.end)
    found = list(change_messages(con, batch, CONTRACT, "batch", 1))
    changes, broken = decoded(CONTRACT["charges"], [message.value.encode() for message in found])
    assert broken == []
    assert changes.to_pylist() == batch.changes["charges"].to_pylist()
    assert {message.key for message in found[:-1]} == {'acct_é|1|charges|["acct_é|1","ch_\\"1"]'}
    assert dict(found[1].headers) == {
        "entity": "charges",
        "op": "u",
        "schema_version": str(CONTRACT["charges"].schema_version),
        "position": changes["_position"][1].as_py(),
        "batch": "batch",
    }


def test_what_is_no_envelope_is_told_apart(con: duckdb.DuckDBPyConnection) -> None:
    log = Log(Random(5)).grow(4)  # noqa: S311
    batch = log.batch(log.start, log.end)
    values = [
        m.value.encode()
        for m in change_messages(con, batch, CONTRACT, "b", 1)
        if dict(m.headers)["entity"] == "charges"
    ]
    spaced = values[0].replace(b'","', b'",\n "')
    foreign = [
        b"",
        b"{",
        b"[1]",
        b'{"entity": "charges"}',
        b"\xff\xfe",
        values[1].replace(b'"op":"u"', b'"op":"x"'),
        b"5",
    ]
    changes, broken = decoded(CONTRACT["charges"], [*foreign[:3], spaced, *values[1:], *foreign[3:]])
    assert broken == foreign
    assert changes.to_pylist() == batch.changes["charges"].to_pylist()
