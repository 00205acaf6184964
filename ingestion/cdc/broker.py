"""The broker between the log and the raw zone: changes out, and in again as the same batches.

Nothing rests on the broker. The slot is acknowledged up to what the raw zone holds, a batch is taken from the topic
only when it is whole and comes next, and where something is missing, the log is read again. A change is known by its
position: what is published twice lands once. So for what lands it does not matter whether what the broker acknowledged
lasts. Events and dead letters are for others and are sent once more only with their batch: those that a broker loses
after it has landed stand in ``ops.outbox`` and in quarantine.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from typing import cast

import duckdb
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Received

from ingestion.cdc.assembly import Assembly, Refill
from ingestion.cdc.batches import LogBatch
from ingestion.cdc.dead_letters import DeadLetter, land_strangers, refused_letters
from ingestion.cdc.envelope import barriers, change_messages, event_messages, new_batch_name
from ingestion.contracts import entities
from ingestion.landing import LandingReport
from ingestion.oltp import SOURCE
from payments.errors import UnreachableError, UsageError
from payments.settings import settings
from payments.systems.stream.client import admin, consumer_properties, is_given
from payments.systems.stream.sender import ForgottenError, Outgoing, Sender
from payments.systems.stream.topics import CHANGES, DEAD_LETTERS, EVENTS, PARTITIONS, keep_small, make_topics

GROUP = "payments.loader"
_POLL_SECONDS = 0.1
_LOST_SECONDS = 0.5
_CARE_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_MESSAGES_A_POLL = 10_000
# The embedded broker holds everything in memory: publishing waits when landing is that many changes behind.
_MOST_UNDER_WAY = 300_000
_FORBIDDEN = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


def never() -> bool:
    """Say that nobody told to stop."""
    return False


class Broker:
    """The topics of one log. One thread may publish while another takes batches.

    What a topic holds of another log is left alone.
    """

    def __init__(self, stream: str, is_stopped: Callable[[], bool] = never) -> None:
        """Make the topics that are missing.

        Args:
            stream: which log it is.
            is_stopped: asked while dead letters wait for a broker that is away.

        Raises:
            UnreachableError: the broker does not answer.
            UsageError: it does not make a topic.
        """
        self._stream, self._is_stopped = stream, is_stopped
        self._contract = entities(SOURCE)
        self._widths = make_topics()
        self._spill = settings().home / "spill"
        self._con = duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(self._spill)})
        self._changes, self._letters = Sender(), Sender()
        # What was published here and has not landed: where each batch ends, and its rows.
        self._under_way: deque[tuple[tuple[int, int], int]] = deque()

    def publish(self, batch: LogBatch, is_stopped: Callable[[], bool] = never) -> bool:
        """Publish a batch; return whether the broker acknowledged all of it: False only when told to stop before.

        While the broker is away it waits, and so it does while the embedded one is full of what has not landed. That
        the broker lost something, :meth:`batches` finds out.

        Raises:
            UsageError: the broker refuses a message.
        """
        while not is_given() and sum(rows for _, rows in list(self._under_way)) > _MOST_UNDER_WAY:
            if is_stopped():
                return False
            time.sleep(_POLL_SECONDS)
        if not self._sent(self._changes, lambda: self._outgoing(batch), is_stopped):
            return False
        self._under_way.append(((batch.epoch, batch.end_lsn), batch.rows))
        return True

    def batches(
        self, landed: tuple[int, int], is_stopped: Callable[[], bool] = never
    ) -> Generator[LogBatch | Refill | None, None, None]:
        """Take batches from the topic, each to be landed before the next is asked for, until told to stop.

        Args:
            landed: the epoch and the place of the log up to which everything has landed.
            is_stopped: asked several times a second.

        Yields:
            The batch that comes next, beginning at what has landed; or a refill, after which the log has to be
            published again from there; or None when nothing has come for a moment.

        Raises:
            UnreachableError: the broker does not answer at the start.
            UsageError: it does not let us read.
        """
        assembly = Assembly(self._stream, self._contract, self._spill, landed)
        is_refilling = False
        with closing(Consumer(dict(consumer_properties(GROUP)))) as consumer:
            reached = self._begin(consumer)
            looked_at = cared_at = time.monotonic()
            while not is_stopped():
                received = _received(consumer)
                if not received:
                    yield None
                for message in received:
                    found = _taken(assembly, reached, message)
                    if found is not None:
                        self._put_aside(assembly)  # before anything says that we came past it
                    if isinstance(found, LogBatch):
                        is_refilling = False
                        yield found
                        assembly.landed = (found.epoch, found.end_lsn)
                        looked_at = time.monotonic()
                        self._note_landed(consumer, assembly)
                    elif found is not None and not is_refilling:
                        # Once only: what follows on the topic was published before, and begins too late as well.
                        is_refilling = True
                        yield self._refill(found)
                self._put_aside(assembly)
                now = time.monotonic()
                if now - looked_at > _LOST_SECONDS:  # nothing has landed for so long
                    looked_at = now
                    if self._has_lost(consumer, assembly.landed, reached):
                        is_refilling = True
                        yield self._refill(Refill("the broker lost the end of what it had acknowledged"))
                if now - cared_at > _CARE_SECONDS and assembly.ends:
                    cared_at = now
                    self._care(consumer, assembly.ends)

    def bury(self, letters: Iterable[DeadLetter]) -> None:
        """Publish what could not be taken, by key; told to stop while the broker is away, leave it to the quarantine.

        Raises UsageError when the broker refuses it.
        """
        width = self._widths[DEAD_LETTERS]
        messages = [Outgoing(DEAD_LETTERS, *letter.message(width)) for letter in letters]
        if messages:
            self._sent(self._letters, lambda: messages, self._is_stopped)

    def bury_refused(self, batch: LogBatch, report: LandingReport) -> None:
        """Publish the records of a batch that the landing writer refused, as :meth:`bury` does."""
        self.bury(refused_letters(batch, report))

    def _outgoing(self, batch: LogBatch) -> Iterator[Outgoing]:
        """Return the messages of a batch: its events, its changes, and its barriers."""
        yield from self._events(batch)
        name, rows = new_batch_name(), [0] * self._widths[CHANGES]
        for message in change_messages(self._con, batch, self._contract, name, len(rows)):
            rows[message.partition] += 1
            yield Outgoing(CHANGES, *message)
        for message in barriers(batch, name, self._stream, rows):
            yield Outgoing(CHANGES, *message)

    def _events(self, batch: LogBatch) -> Iterator[Outgoing]:
        if batch.events is None:
            return
        for kind, message in event_messages(batch.events, PARTITIONS):
            topic = f"{EVENTS}{kind}"
            if topic not in self._widths:
                self._widths = {**self._widths, **make_topics([topic])}
            yield Outgoing(topic, *message)

    def _sent(self, sender: Sender, messages: Callable[[], Iterable[Outgoing]], is_stopped: Callable[[], bool]) -> bool:
        """Send messages, all of them again when the broker lost any."""
        while True:
            try:
                return sender.send(messages(), is_stopped)
            except (ForgottenError, UnreachableError):
                if is_stopped():
                    return False
                time.sleep(_POLL_SECONDS)
                self._make_topics_again()

    def _make_topics_again(self) -> None:
        """Make the topics that the broker lost."""
        try:
            widths = make_topics(self._widths)
        except (UnreachableError, KafkaException):
            return  # it is away: sending waits for it
        if widths[CHANGES] != self._widths[CHANGES]:
            raise UsageError(f"The topic {CHANGES} has other partitions than before: stream again.")

    def _begin(self, consumer: Consumer) -> dict[int, int]:
        """Begin where the last loader came to, if that is still on the topic, else with its oldest message."""
        places = [TopicPartition(CHANGES, partition) for partition in range(self._widths[CHANGES])]
        try:
            places = consumer.committed(places, timeout=_ANSWER_SECONDS)
            for place in places:
                low, high = consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)
                place.offset = place.offset if low <= place.offset <= high else low
        except KafkaException as error:
            reason = error.args[0].str()
            raise UnreachableError(f"The broker does not say what it has of {CHANGES} ({reason}).") from error
        consumer.assign(places)
        return {place.partition: place.offset for place in places}

    def _put_aside(self, assembly: Assembly) -> None:
        if assembly.strangers:
            self.bury(land_strangers(assembly.strangers))
            assembly.strangers.clear()

    def _note_landed(self, consumer: Consumer, assembly: Assembly) -> None:
        way = self._under_way
        # A batch that was still being published when the log was begun again stands before older ones: it comes again.
        while way and (way[0][0] <= assembly.landed or (len(way) > 1 and way[1][0] <= way[0][0])):
            way.popleft()
        places = [TopicPartition(CHANGES, partition, end) for partition, end in assembly.hints().items()]
        consumer.commit(offsets=places, asynchronous=True)  # a hint where to begin, no more

    def _refill(self, refill: Refill) -> Refill:
        """Forget what was published: it will be published again."""
        self._under_way.clear()
        return refill

    def _has_lost(self, consumer: Consumer, landed: tuple[int, int], reached: dict[int, int]) -> bool:
        """Return whether everything on the topic was taken, and yet less has landed than was published."""
        if not any(end > landed for end, _ in list(self._under_way)):
            return False
        try:
            self._make_topics_again()
            ends = [
                consumer.get_watermark_offsets(TopicPartition(CHANGES, partition), timeout=_ANSWER_SECONDS)[1]
                for partition in reached
            ]
        except KafkaException:
            return False  # it is away
        return all(place >= end for place, end in zip(reached.values(), ends, strict=True))

    def _care(self, consumer: Consumer, ends: dict[int, int]) -> None:
        """Keep the embedded broker small: changes up to what has landed, all others whoever has read them."""
        if is_given():
            return
        with suppress(KafkaException):  # it is away
            others = [
                TopicPartition(topic, partition)
                for topic, width in self._widths.items()
                if topic != CHANGES
                for partition in range(width)
            ]
            for place in others:
                place.offset = consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)[1]
            keep_small(
                admin(), [*others, *(TopicPartition(CHANGES, partition, end) for partition, end in ends.items())]
            )


def _received(consumer: Consumer) -> list[Received]:
    first = consumer.poll(_POLL_SECONDS)
    return [] if first is None else [first, *consumer.consume(_MESSAGES_A_POLL, timeout=0)]


def _taken(assembly: Assembly, reached: dict[int, int], message: Received) -> LogBatch | Refill | None:
    if (error := message.error()) is not None:
        if error.code() in _FORBIDDEN:
            raise UsageError(f"The broker does not let us read {CHANGES}: {error.str()}.")
        return None  # it is away, or began anew: the client goes on by itself
    partition, offset = message.partition() or 0, message.offset() or 0
    reached[partition] = offset + 1
    headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
    key, value = message.key(), message.value()
    return assembly.take(partition, offset, key or b"", headers, value or b"")
