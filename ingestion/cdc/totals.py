"""What stands on the topic of changes, in numbers: one of the systems that the reconciliation compares."""

import hashlib
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import cast

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import ValidationError

from ingestion.cdc.envelope import BARRIER, Barrier
from ingestion.raw_zone import Position
from payments.errors import UsageError
from payments.systems.stream.client import consumer_properties
from payments.systems.stream.topics import CHANGES, make_topics

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 10.0
_MESSAGES_A_POLL = 10_000


@dataclass(frozen=True)
class EntityTotals:
    """The changes of an entity; ``checksum`` sums the first 60 bits of the MD5 of their positions, in any order."""

    changes: int
    checksum: int


@dataclass(frozen=True)
class TopicTotals:
    """What the topic holds of the log between two places, without a hole; a truncation is one change.

    It begins with the oldest batch that is still whole. The changes in it are those whose transaction committed at or
    after ``start_lsn`` and before ``end_lsn``.
    """

    epoch: int
    start_lsn: int
    end_lsn: int
    entities: dict[str, EntityTotals]


@dataclass
class _Batch:
    rows: dict[int, int] = field(default_factory=dict)
    barriers: dict[int, Barrier] = field(default_factory=dict)
    positions: dict[str, set[str]] = field(default_factory=dict)

    def is_whole(self) -> bool:
        return all(barrier.rows == self.rows.get(partition, 0) for partition, barrier in self.barriers.items()) and (
            len(self.barriers) == next(iter(self.barriers.values())).partitions if self.barriers else False
        )


def topic_totals(stream: str, up_to: int | None = None, since: int = 0) -> TopicTotals | None:
    """Return what the topic holds of a log, between two places of it; None when it holds no whole batch of it.

    Raises:
        UsageError: the broker cannot be reached.
    """
    width = make_topics([CHANGES])[CHANGES]
    batches: dict[str, _Batch] = {}
    try:
        _read(width, batches)
    except KafkaException as error:
        raise UsageError(f"The broker stopped answering ({error.args[0].str()}): ask again.") from error
    ends = [
        (next(iter(batch.barriers.values())), batch.positions)
        for batch in batches.values()
        if batch.is_whole() and next(iter(batch.barriers.values())).stream == stream
    ]
    ends.sort(key=lambda end: (end[0].epoch, end[0].end_lsn))
    return _totals(ends, up_to, since) if ends else None


def _totals(ends: list[tuple[Barrier, dict[str, set[str]]]], up_to: int | None, since: int) -> TopicTotals:
    last = ends[-1][0]
    epoch, start, end = last.epoch, last.end_lsn, last.end_lsn
    positions: dict[str, set[str]] = {}
    for barrier, found in reversed(ends):
        if barrier.epoch != epoch or barrier.end_lsn < start:
            break
        start = min(start, barrier.start_lsn)
        for entity, some in found.items():
            positions.setdefault(entity, set()).update(some)
    start = max(start, since)
    end = max(start, end if up_to is None else min(end, up_to))
    first, below = str(Position(epoch, start, 0, 0)), str(Position(epoch, end, 0, 0))
    counted = {entity: [at for at in found if first <= at < below] for entity, found in positions.items()}
    return TopicTotals(epoch, start, end, {entity: _of(found) for entity, found in sorted(counted.items()) if found})


def _of(positions: list[str]) -> EntityTotals:
    digests = (hashlib.md5(position.encode(), usedforsecurity=False).hexdigest() for position in positions)
    return EntityTotals(len(positions), sum(int(digest[:15], 16) for digest in digests))


def _read(partitions: int, batches: dict[str, _Batch]) -> None:
    """Read what the topic holds now."""
    places = [TopicPartition(CHANGES, partition) for partition in range(partitions)]
    with closing(Consumer(dict(consumer_properties("payments.totals")))) as consumer:

        def ends() -> list[int]:
            bounds = [consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS) for place in places]
            for place, (low, _) in zip(places, bounds, strict=True):
                place.offset = max(place.offset, low)
            return [high for _, high in bounds]

        wanted = ends()
        consumer.assign(places)
        while any(place.offset < end for place, end in zip(places, wanted, strict=True)):
            messages = consumer.consume(_MESSAGES_A_POLL, timeout=_POLL_SECONDS)
            if not messages:  # it may have forgotten, or lost, some of it
                wanted = [min(now, end) for now, end in zip(ends(), wanted, strict=True)]
            for message in messages:
                if (error := message.error()) is not None:
                    if not error.retriable():
                        raise KafkaException(error)
                    continue
                partition = message.partition() or 0
                places[partition].offset = (message.offset() or 0) + 1
                headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
                with suppress(KeyError, ValidationError, UnicodeDecodeError):  # a stranger
                    _count(batches, partition, headers, message.value())


def _count(batches: dict[str, _Batch], partition: int, headers: dict[str, bytes], value: str | bytes | None) -> None:
    batch = batches.setdefault(headers["batch"].decode(), _Batch())
    if headers["op"] == BARRIER:
        batch.barriers[partition] = Barrier.model_validate_json(value or b"")
        return
    entity, position = headers["entity"].decode(), headers["position"].decode()
    batch.rows[partition] = batch.rows.get(partition, 0) + 1
    batch.positions.setdefault(entity, set()).add(position)
