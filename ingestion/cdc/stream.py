"""Change data capture of the operational store into the raw zone: directly, or over a broker.

Transactions land whole, many to a batch; how far the log was read stands in the commit record of the batch, so that
data and position become visible in one step, and the slot is acknowledged only then, with a broker as without. What
the server sends again, after a crash of either side, begins behind what has landed.
"""

import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.cdc.assembly import Refill
from ingestion.cdc.batches import LogBatch
from ingestion.cdc.broker import Broker, never
from ingestion.cdc.generation import NAME, log_name, prepare
from ingestion.cdc.pgoutput import Relation
from ingestion.cdc.records import stage_log
from ingestion.cdc.schemas import TableView, view_of
from ingestion.cdc.slot import EVENTS, OUTBOX, Slot, SlotReader, Views, open_slot
from ingestion.compaction import compact_if_needed
from ingestion.contracts import Entity, entities
from ingestion.landing import LandingReport, Staged, landing
from ingestion.oltp import SOURCE, carried, snapshot_point, stopped_tables, table_now, table_of
from ingestion.raw_zone import Commit, Pin, Position, RawZone
from payments.errors import UnreachableError, UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect, dsn
from payments.systems.stream import server as broker_server

CHANGES_A_BATCH = 100_000
SECONDS_A_BATCH = 0.2


@dataclass(frozen=True)
class Step:
    """One step of a stream: what a batch landed and the position it reached, None when nothing came.

    ``lag_bytes`` of the server's log are not landed yet; ``lag_seconds`` passed between the commit of the last
    transaction of the batch and the moment at which it could be queried.
    """

    report: LandingReport | None
    position: Position | None
    changes: int
    lag_bytes: int
    lag_seconds: float


def drain() -> list[LandingReport]:
    """Land every change that was committed before the call, and return the batches.

    The first call makes publication and slot and lands a snapshot. Raises ``UsageError`` when the store cannot be
    reached, or the slot is lost, was moved, or is read by somebody else.
    """
    with _losing_the_store():
        reports = list(prepare(with_events=broker_server.is_wanted()))
    with connect(autocommit=True) as connection:
        target = snapshot_point(connection).lsn
    with closing(_steps(target, never)) as steps:
        return reports + [step.report for step in steps if step.report is not None]


def follow(is_stopped: Callable[[], bool]) -> Iterator[Step]:
    """Land changes as they are committed, a batch at a time, until told to stop; a batch is never left half-way.

    Raises ``UsageError`` as :func:`drain` does; an ``UnreachableError`` is worth another try.
    """
    with _losing_the_store():
        for _ in prepare(with_events=broker_server.is_wanted()):
            if is_stopped():
                return  # what is missing of the snapshot is read the next time
    with closing(_steps(None, is_stopped)) as steps:
        while not is_stopped():
            yield next(steps)


def _steps(target: int | None, is_stopped: Callable[[], bool]) -> Generator[Step, None, None]:
    """Land what comes, up to a place of the log or (None) without end."""
    with _losing_the_store():
        if broker_server.is_wanted():
            yield from _over_broker(target, is_stopped)
        else:
            yield from _directly(target)


def _directly(target: int | None) -> Generator[Step, None, None]:
    """Land what the slot gives; the next batch is read while one lands."""
    with _reading() as reader, ThreadPoolExecutor(1) as pool:
        reached = reader.reached
        coming = pool.submit(reader.collect, SECONDS_A_BATCH, CHANGES_A_BATCH, target)
        try:
            while (batch := coming.result()) is not None or not reader.has_read(target):
                coming = pool.submit(reader.collect, SECONDS_A_BATCH, CHANGES_A_BATCH, target)
                report = None
                if batch is not None:
                    report, reached = land(batch), batch.end_lsn
                    reader.acknowledge(reached)
                yield _step(batch, report, reader, reached)
        finally:
            reader.give_up()


def _over_broker(target: int | None, is_stopped: Callable[[], bool]) -> Generator[Step, None, None]:
    """Publish what the slot gives, and land what the broker gives back."""
    last = _begun(RawZone(settings().raw_zone).pin())
    broker = Broker(log_name(last), is_stopped)
    relay = Relay(broker, target)
    landed = last.reached.epoch, int(last.parameters["lsn"])

    def is_over() -> bool:
        return relaying.done() or (relay.ended_at is not None and landed[1] >= relay.ended_at)

    with ThreadPoolExecutor(1) as pool, closing(broker.batches(landed, is_over)) as batches:
        relaying: Future[None] = pool.submit(relay.run)
        try:
            for batch in batches:
                report = None
                if isinstance(batch, Refill):
                    relay.begin_again()
                    continue
                if batch is not None:
                    report, landed = land(batch), (batch.epoch, batch.end_lsn)
                    relay.acknowledge(batch.end_lsn)
                    broker.bury_refused(batch, report)
                yield _step(batch, report, relay.reader, landed[1])
        finally:
            relay.stop()
        relaying.result()


@dataclass
class Relay:
    """Reads the slot and publishes, in a thread of its own, until stopped or (with a target) all of it is out."""

    broker: Broker
    target: int | None
    ended_at: int | None = None
    """Where the log stood when all up to the target was published."""
    reader: SlotReader | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _again: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Publish from what has landed on; from there again when the broker lost something.

        Raises ``UsageError`` when the store is lost.
        """
        with _losing_the_store():
            while True:
                self._again.clear()
                if self._stop.is_set():
                    return
                with _reading() as reader:
                    self.reader = reader
                    while not self._again.is_set():
                        batch = reader.collect(SECONDS_A_BATCH, CHANGES_A_BATCH, self.target)
                        if batch is not None:
                            self.broker.publish(batch, self._again.is_set)
                        elif reader.has_read(self.target):
                            self.ended_at = reader.reached
                            self._again.wait(SECONDS_A_BATCH)

    def begin_again(self) -> None:
        """Publish once more all that has not landed."""
        self.ended_at = None
        self._again.set()

    def stop(self) -> None:
        """End the reading; what was published stays."""
        self._stop.set()
        self._again.set()
        if self.reader is not None:
            self.reader.give_up()

    def acknowledge(self, end_lsn: int) -> None:
        """Let the server forget what has landed."""
        if self.reader is not None:
            self.reader.acknowledge(end_lsn)


def _step(batch: LogBatch | None, report: LandingReport | None, reader: SlotReader | None, landed: int) -> Step:
    # What the server wrote after the last transaction is nobody's to land.
    lag_bytes = 0 if reader is None or landed >= reader.reached else max(0, reader.wal_end - landed)
    if batch is None or not batch.transactions:
        return Step(report, None, 0, lag_bytes, 0.0)
    lag = (datetime.now(UTC) - batch.committed_at).total_seconds()
    return Step(report, Position(batch.epoch, batch.end_lsn, 0, 0), batch.rows, lag_bytes, lag)


def land(batch: LogBatch) -> LandingReport:
    """Land transactions in one batch, with the position that they reach."""
    with landing(SOURCE, "log", origin="") as files:
        last = _begun(files.pin)
        if (last.reached.epoch, int(last.parameters["lsn"])) != (batch.epoch, batch.start_lsn):
            # The server took the slot from this process, which stood still, and gave it to another.
            raise UsageError("Another stream has landed what this one holds: one stream at a time, stop one of them.")
        files.origin, files.source_at = last.origin, max(last.source_at, batch.committed_at)
        files.epoch, files.source_position = batch.epoch, batch.end_lsn
        files.parameters = {**carried(last), "lsn": str(batch.end_lsn)}
        stopped = stopped_tables(last)
        for entity in entities(SOURCE).values():
            if (changes := batch.changes.get(entity.name)) is None:
                continue
            if reasons := _stops(changes):
                stopped[entity.name] = reasons[0]
            stage_log(files, entity, changes)
            files.land_log(Staged(entity, "staged"))
        if stopped:
            files.parameters["stopped"] = json.dumps(stopped)
        report = files.commit()
    compact_if_needed()
    return report


def _stops(changes: pa.Table) -> list[str]:
    """Return why a table of changes does not fit its contract any more."""
    found = changes.filter(pc.field("_rule") == "stopped_table")["_reason"]
    return [str(reason) for reason in found.unique().to_pylist()]


@contextmanager
def _reading() -> Iterator[SlotReader]:
    """Open the slot behind what has landed."""
    last = _begun(RawZone(settings().raw_zone).pin())
    reached, views = int(last.parameters["lsn"]), _views(stopped_tables(last))
    with open_slot(Slot(dsn(), NAME, NAME), reached, last.reached.epoch, views, settings().home / "spill") as reader:
        yield reader


@contextmanager
def _losing_the_store() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise UnreachableError(
            f"The operational store was lost while its log was read ({reason}): what has landed stays; stream again."
        ) from error


def _begun(pin: Pin) -> Commit:
    last = pin.last_of(SOURCE)
    if last is None:
        raise AssertionError("a generation begins before the log is read")
    return last


def _views(stopped: dict[str, str]) -> Views:
    """Return what tells how a table is read: as it is from here on, or stopped until a snapshot of it."""
    wanted = {table_of(entity): entity for entity in entities(SOURCE).values()}

    def view(relation: Relation) -> tuple[Entity, TableView] | None:
        name = (relation.schema, relation.table)
        type_oids = {column.name: column.type_oid for column in relation.columns}
        if name == OUTBOX:
            return EVENTS, view_of(EVENTS, type_oids, {})
        entity = wanted.get(name)
        if entity is None:
            return None
        found = view_of(entity, type_oids, {})
        if None in found.sources.values():
            # Perhaps a column has another name: the catalogue knows.
            with connect(autocommit=True) as connection:
                renamed = table_now(connection, RawZone(settings().raw_zone).pin(), entity).view.sources
            found = view_of(entity, type_oids, {old: new for old, new in renamed.items() if new is not None})
        if (reason := stopped.get(entity.name)) is not None:
            found = replace(found, stopped=reason)
        if found.stopped is not None:
            stopped[entity.name] = found.stopped
        return entity, found

    return view
