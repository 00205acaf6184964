"""Seeds of faults: a random workload, random failures, and the proof that nothing was lost and nothing came twice.

``python -m tests.faults.simulator --seed 7`` plays one seed again, ``--seeds 200`` plays many. A seed decides what is
written and what fails; at which instant a failure meets another process is decided by the machine.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ingestion.cdc.copies import CopyReport
from payments.settings import settings
from payments.systems import processes
from payments.systems.documents import server as documents_server
from payments.systems.documents.client import database, uri
from payments.systems.documents.collections import apply_collections
from payments.systems.oltp import backup, server
from payments.systems.oltp.connection import connect, dsn
from payments.systems.oltp.migrations import migrate
from payments.systems.oltp.postgres import cluster
from payments.systems.stream import server as broker_server
from tests.cdc.test_copies import assert_equal_to_the_source
from tests.faults.oracle import Expected, reached, violations
from tests.faults.proxy import Proxy
from tests.faults.stream_process import Failure, Run, start
from tests.faults.workload import Event, Workload, history, record_anew, record_history
from tests.systems.brokers import kill_broker, point_to_broker
from tests.systems.shop import Shop
from tests.systems.stores import own_store

SLOT = "payments"
TEMPLATE = "payments"
PATIENCE_SECONDS = 240.0
_STREAM = "ingestion.cdc.stream"
_READER = "ingestion.cdc.slot.SlotReader"
_FILES = "ingestion.raw_zone"
# Small batches, so that a small load makes many of them.
PACE = {
    f"{_STREAM}.SECONDS_A_BATCH": 0.1,
    f"{_STREAM}.CHANGES_A_BATCH": 60,
    "ingestion.cdc.supervisor._AGAIN_SECONDS": 0.1,
    "ingestion.compaction.COMMITS": 25,
    "ingestion.cdc.slot.PIECE_MESSAGES": 25,
    "ingestion.cdc.snapshot.RANGE_BYTES": 300_000,
}
# A seed without a document store.
WITHOUT_COPIES = {
    "ingestion.cdc.supervisor.advance_copies": CopyReport,
    "ingestion.cdc.copies.advance_copies": CopyReport,
}
# Where a stream is killed: function, and up to which of its calls.
POINTS = {
    f"{_STREAM}.land": 3,
    "ingestion.landing.Landing.land_log": 6,
    f"{_FILES}._sync": 20,
    f"{_FILES}.move_files": 3,
    f"{_FILES}.move_record": 3,
    f"{_READER}.acknowledge": 3,
}
SNAPSHOT_POINTS = {
    "ingestion.cdc.generation._begin_generation": 1,
    "ingestion.cdc.snapshot._export": 6,
    "ingestion.cdc.snapshot._land": 6,
    "ingestion.landing.Landing.land": 40,
    f"{_FILES}._sync": 60,
    f"{_FILES}.move_record": 6,
}
BROKER_POINTS = {
    "ingestion.cdc.broker.Broker.publish": 3,
    "ingestion.cdc.broker.Broker._note_landed": 3,
    "ingestion.cdc.envelope.new_batch_name": 3,
}
COPY_POINTS = {
    "ingestion.cdc.copies._write_progress": 3,
    "ingestion.cdc.copies._Copies._upsert": 6,
    "ingestion.cdc.copies.delete_copies": 1,
}
COMPACTION_POINTS = {
    "ingestion.compaction.remove_replaced": 1,
    "ingestion.compaction.move_files": 1,
    "ingestion.compaction.move_record": 1,
    f"{_FILES}._sync": 20,
}
ALTERATIONS = (
    ("core.customers", "alter table core.customers add column loyalty text"),
    ("core.products", "alter table core.products add column weight integer not null default 3"),
    ("core.coupons", "alter table core.coupons alter column duration_in_months type bigint"),
    ("core.setup_intents", "alter table core.setup_intents alter column usage type varchar(40)"),
    ("core.products", "alter table core.products replica identity full"),
    ("core.merchants", "alter table core.merchants replica identity full"),
    ("core.coupons", "alter table core.coupons rename column is_valid to is_usable"),
    ("core.coupons", "alter table core.coupons drop column duration_in_months"),
)


class ViolationError(AssertionError):
    """A seed that ended otherwise than it must."""


@dataclass
class World:
    """The server that all seeds of a run use, each with a database of its own."""

    folder: Path
    proxy: Proxy

    def documents(self) -> str:
        """Empty the document store, started when first asked for, and give its URI."""
        documents_server.start()
        store = database()
        for name in store.list_collection_names():
            store[name].delete_many({})
        apply_collections()
        return uri()

    def is_free(self) -> bool:
        """Say whether nobody reads the slot."""
        with connect(autocommit=True, dbname="postgres") as connection:
            active = "select from pg_replication_slots where slot_name = %s and active"
            return connection.execute(active, (SLOT,)).fetchone() is None

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Make a database as the migrations leave it, and give its connection string; drop it with its slot."""
        with connect(autocommit=True, dbname="postgres") as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE))
            )
        try:
            yield dsn(name)
        finally:
            server.start()
            with connect(autocommit=True, dbname="postgres") as connection:
                connection.execute("alter system reset max_slot_wal_keep_size")
                connection.execute("select pg_reload_conf()")
                connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def drop_slot(self) -> None:
        """Drop the slot, which lives beside the databases."""
        with connect(autocommit=True, dbname="postgres") as connection:
            connection.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s", (SLOT,)
            )
        processes.wait_until(self.is_free, PATIENCE_SECONDS)
        with connect(autocommit=True, dbname="postgres") as connection:
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (SLOT,)
            )


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Start a server with a template database; stop and delete it at the end."""
    with own_store(folder, PAYMENTS_DOCUMENTS_PORT=str(processes.free_port())) as home:
        server.start()
        migrate()
        with connect(autocommit=True) as connection:
            Shop(connection).open()
            record_history(connection)
        try:
            with Proxy(settings().oltp_port) as proxy:
                yield World(home, proxy)
        finally:
            documents_server.destroy()


@dataclass(frozen=True)
class SeedBroker:
    """The broker of one seed, in the seed's state folder."""

    home: Path
    port: int

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Let this process mean this broker."""
        with pytest.MonkeyPatch.context() as patch:
            point_to_broker(patch, self.home, self.port)
            yield
        settings.cache_clear()

    def start(self) -> None:
        """Start it; its topics are made where they are missing."""
        with self.settings():
            broker_server.start()

    def stop(self) -> None:
        """Stop it: until it is started again, streams go without one."""
        with self.settings():
            broker_server.stop()

    def kill(self) -> None:
        """Kill it: it forgets what it acknowledged last."""
        with self.settings():
            kill_broker()

    def destroy(self) -> None:
        """Stop it and delete all that it holds."""
        with self.settings():
            broker_server.destroy()


@dataclass
class Stream:
    """A running ``payments stream``; ``may_end``: whether a failure was planted that lets it end by itself."""

    process: ForkServerProcess
    log: Path
    may_end: bool

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process.pid is not None
        return self.process.pid

    def end(self, number: signal.Signals) -> int | None:
        """Send a signal and return how the process ended; one that a planted failure ended already stays so."""
        if self.process.is_alive():
            os.kill(self.pid, number)
        self.process.join(PATIENCE_SECONDS)
        if self.process.is_alive():
            self.say_where_it_stands()
            self.process.kill()
            self.process.join()
            raise ViolationError(f"the stream did not end within {PATIENCE_SECONDS} s of {number.name}: {self.told()}")
        return self.process.exitcode

    def say_where_it_stands(self) -> None:
        """Let it print the stacks of its threads."""
        for _ in range(3):
            os.kill(self.pid, signal.SIGUSR1)
            self.process.join(1)

    def told(self) -> str:
        """Return the end of what was printed."""
        return self.log.read_text(encoding="utf-8", errors="replace").strip()[-4000:] if self.log.exists() else ""


@dataclass
class Simulation:
    """One seed being played."""

    world: World
    draw: Random
    dsn: str
    folder: Path
    workload: Workload
    broker: SeedBroker | None = None
    documents: str | None = None
    """The URI of the document store, when copies are kept there."""
    done: list[str] = field(default_factory=list)
    """What failed so far, in words."""
    processes: list[ForkServerProcess] = field(default_factory=list)
    may_be_quarantined: set[str] = field(default_factory=set)
    """The entities that a failure let have records in quarantine."""
    _past: Expected = field(default_factory=Expected)
    """What was committed before the last restore."""
    _base: set[int] = field(default_factory=set)
    """The changes of today's history that the last restore brought back."""
    _excused: set[int] = field(default_factory=set)

    @property
    def raw(self) -> Path:
        """The raw zone of this seed."""
        return self.folder / "raw"

    @property
    def constants(self) -> dict[str, Any]:
        """What is other in the program than it is for customers."""
        return PACE if self.documents else PACE | WITHOUT_COPIES

    @property
    def points(self) -> dict[str, int]:
        """Where a stream may be killed."""
        return POINTS | (BROKER_POINTS if self.broker else {}) | (COPY_POINTS if self.documents else {})

    def play(self, chosen: Sequence[Callable[["Simulation"], None]] = ()) -> None:
        """Fail and recover some times, as is drawn or chosen; land everything, and compare."""
        self._begin()
        faults = FAULTS if self.broker is None else FAULTS | BROKER_FAULTS
        drawn = self.draw.choices(list(faults), list(faults.values()), k=self.draw.randint(3, 5))
        for fault in chosen or drawn:
            fault(self)
        self.workload.end_long_transaction()
        self.drain()
        self._require_agreement()

    def work(self) -> None:
        """Write for a while."""
        self.workload.burst(self.draw.randint(3, 10))

    def start(self, *arguments: str, failures: tuple[Failure, ...] = (), file_bytes: int | None = None) -> Stream:
        """Start a stream, as soon as nobody else reads the slot."""
        if not processes.wait_until(self.world.is_free, PATIENCE_SECONDS):
            raise ViolationError("the slot stays in use although its reader has ended")
        return self._start(*arguments, failures=failures, file_bytes=file_bytes)

    def _start(self, *arguments: str, failures: tuple[Failure, ...] = (), file_bytes: int | None = None) -> Stream:
        return self._run("stream", *arguments, failures=failures, file_bytes=file_bytes)

    def _run(
        self, command: str, *arguments: str, failures: tuple[Failure, ...] = (), file_bytes: int | None = None
    ) -> Stream:
        log = self.folder / f"{command}-{len(self.processes)}.log"
        environment = {
            "PAYMENTS_HOME": str(self.folder),
            "PAYMENTS_OLTP_DSN": make_conninfo(self.dsn, port=self.world.proxy.port),
            "PAYMENTS_RAW": "",
            "PAYMENTS_DOCUMENTS_URI": self.documents or "",
            "PAYMENTS_KAFKA_BOOTSTRAP": "",
            "PAYMENTS_KAFKA_PORT": "1" if self.broker is None else str(self.broker.port),
        }
        process = start(Run((command, *arguments), environment, log, failures, self.constants, file_bytes))
        self.processes.append(process)
        return Stream(process, log, bool(failures) or file_bytes is not None)

    @contextmanager
    def streaming(self, *failures: Failure, file_bytes: int | None = None) -> Iterator[Stream]:
        """Run a stream meanwhile; killed at the end or told to stop, where it must say that all is well."""
        stream = self.start(failures=failures, file_bytes=file_bytes)
        try:
            yield stream
        except BaseException:
            stream.process.kill()
            raise
        if self.draw.random() < 0.5:
            stream.end(signal.SIGKILL)
        elif (code := stream.end(signal.SIGTERM)) != 0 and not stream.may_end:
            raise ViolationError(f"the stream ended with {code} when it was told to stop: {stream.told()}")

    def settle(self, stream: Stream) -> bool:
        """Wait until all that is committed has landed; return whether the stream lived on."""
        mark = self.workload.mark()

        def is_over() -> bool:
            return reached(self.raw) > mark or not stream.process.is_alive()

        if not processes.wait_until(is_over, PATIENCE_SECONDS):
            stream.say_where_it_stands()
            raise ViolationError(f"nothing landed for {PATIENCE_SECONDS} s: {stream.told()}")
        if not stream.process.is_alive() and not stream.may_end:
            raise ViolationError(f"the stream ended by itself with {stream.process.exitcode}: {stream.told()}")
        return stream.process.is_alive()

    def once(self, *arguments: str, failures: tuple[Failure, ...] = ()) -> Stream:
        """Run ``payments stream --once`` to its end."""
        stream = self.start("--once", *arguments, failures=failures)
        stream.process.join(PATIENCE_SECONDS)
        if stream.process.is_alive():
            stream.say_where_it_stands()
            stream.end(signal.SIGKILL)
            raise ViolationError(f"--once took more than {PATIENCE_SECONDS} s: {stream.told()}")
        return stream

    def drain(self, *arguments: str) -> None:
        """Land all that is committed, with nothing planted."""
        stream = self.once(*arguments)
        if stream.process.exitcode != 0:
            raise ViolationError(f"--once ended with {stream.process.exitcode}: {stream.told()}")

    def history(self) -> list[Event]:
        """Return what is committed in the database as it is now."""
        with psycopg.connect(self.dsn) as connection:
            return history(connection)

    def landed(self) -> set[int]:
        """Land everything and return what the log must have told by now."""
        self.drain()
        return {event.n for event in self.history()}

    def excuse_since(self, landed: set[int], entity: str | None = None) -> None:
        """Let what a snapshot brought be missing in the log: all that has come since, or to one entity."""
        self._excused |= {event.n for event in self.history() if entity in (None, event.entity)} - landed

    def expected(self) -> Expected:
        """Return all that was committed, also before a restore."""
        history = self.history()
        return self.expected_of(history, {event.n for event in history})

    def _require_agreement(self) -> None:
        with psycopg.connect(self.dsn) as connection:
            found = violations(connection, self.raw, self.expected(), self.may_be_quarantined)
            if found:
                raise ViolationError("\n".join(found[:12]))
            if self.documents:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("PAYMENTS_RAW", str(self.raw))
                    settings.cache_clear()
                    assert_equal_to_the_source(connection, database())
                settings.cache_clear()

    def _begin(self) -> None:
        """Make the first snapshot, while others write; sometimes it takes more than one attempt."""
        self.work()
        for _ in range(self.draw.choice((0, 0, 1))):
            stream = self.start("--once", failures=(self._drawn_failure(SNAPSHOT_POINTS),))
            self._work_through_a_slot_being_made()
            stream.end(signal.SIGCONT)
        stream = self.start("--once")
        self._work_through_a_slot_being_made()
        if (code := stream.end(signal.SIGCONT)) != 0:
            raise ViolationError(f"the first snapshot ended with {code}: {stream.told()}")
        self.excuse_since(set())

    def _work_through_a_slot_being_made(self) -> None:
        """Write, and leave nothing open: a slot begins when every transaction that it met has ended."""
        self.work()
        self.workload.end_long_transaction()

    def _drawn_failure(self, points: dict[str, int], how: str = "kill") -> Failure:
        where = self.draw.choice(list(points))
        failure = Failure(where, self.draw.choice(("before", "after")), self.draw.randint(1, points[where]), how)
        self.done.append(str(failure))
        return failure

    # What can fail. Each leaves no stream behind.

    def killed_at_a_point(self) -> None:
        with self.streaming(self._drawn_failure(self.points)) as stream:
            self._work_while_it_lives(stream)

    def killed(self) -> None:
        self.done.append("stream killed")
        with self.streaming() as stream:
            stream.may_end = True
            self.work()
            if self.draw.random() < 0.5:
                self.settle(stream)
                self.work()
            stream.end(signal.SIGKILL)

    def disk_full(self) -> None:
        if self.draw.random() < 0.5:
            file_bytes = self.draw.choice((2_000, 8_000, 30_000))
            self.done.append(f"disk full at {file_bytes} bytes a file")
            with self.streaming(file_bytes=file_bytes) as stream:
                self._work_while_it_lives(stream)
        else:
            points = {name: count for name, count in POINTS.items() if name.startswith(_FILES)}
            with self.streaming(self._drawn_failure(points, "full")) as stream:
                self._work_while_it_lives(stream)

    def delivered_again(self) -> None:
        forgotten = self.draw.choice((f"{_READER}.acknowledge", "ingestion.cdc.broker.Broker._note_landed"))
        self.done.append(f"no {forgotten}")
        with self.streaming(Failure(forgotten, "instead")) as stream:
            self._work_while_it_lives(stream)

    def left_behind(self) -> None:
        """A stream stands still with a batch in its hands, another takes over, and the first wakes up."""
        self.done.append("a stream stood still and woke up")
        sleeper = self.start(failures=(Failure(f"{_STREAM}.land", "before", self.draw.randint(1, 2), "pause"),))
        try:
            asleep = False
            for _ in range(3):
                self.work()
                if asleep := self._falls_asleep(sleeper):
                    break
            if asleep:
                self._end_backends("backend_type = 'walsender'")
                self.drain()
                self.work()
                os.kill(sleeper.pid, signal.SIGCONT)
        finally:
            if sleeper.process.is_alive():
                processes.wait_until(lambda: not sleeper.process.is_alive(), 5 if asleep else 0)
                sleeper.end(signal.SIGKILL)

    def _falls_asleep(self, sleeper: Stream) -> bool:
        mark = self.workload.mark()
        processes.wait_until(lambda: reached(self.raw) > mark or _is_asleep(sleeper.pid), PATIENCE_SECONDS)
        return _is_asleep(sleeper.pid)

    def second_stream(self) -> None:
        self.done.append("a second stream")
        with self.streaming() as stream:
            self.work()
            self.settle(stream)
            second = self._start("--once")
            self.work()
            second.process.join(PATIENCE_SECONDS)
            if second.process.exitcode != 2:
                raise ViolationError(f"a second stream ended with {second.process.exitcode}: {second.told()}")
            self.settle(stream)

    def connection_ended(self) -> None:
        self.done.append("replication connection ended")
        with self._interrupted() as stream:
            self.work()
            self._end_backends("backend_type = 'walsender'")
            self._work_while_it_lives(stream)

    def server_killed(self) -> None:
        self.done.append("server killed")
        with self._interrupted() as stream:
            self._maybe_settled(stream)
            running = cluster().postmaster()
            assert running is not None
            self.workload.close()
            os.kill(running.pid, signal.SIGKILL)
            cluster().end_orphans()
            server.start()
            self._work_while_it_lives(stream)

    def server_restarted(self) -> None:
        self.done.append("server restarted")
        with self._interrupted() as stream:
            self._maybe_settled(stream)
            self.workload.close()
            server.stop()
            server.start()
            self._work_while_it_lives(stream)

    def network_cut(self) -> None:
        """The network holds what it carries, then breaks or goes on."""
        is_held, is_cut = self.draw.choice(((True, False), (False, True), (True, True)))
        self.done.append("network " + " and ".join(["held"] * is_held + ["cut"] * is_cut))
        with self._interrupted() as stream:
            self.work()
            if is_held:
                self.world.proxy.hold()
                self.work()
            if is_cut:
                self.world.proxy.cut()
                self.work()
            self.world.proxy.heal()
            self._work_while_it_lives(stream)

    def broker_killed(self) -> None:
        self._without_broker("killed", SeedBroker.kill)

    def broker_emptied(self) -> None:
        self._without_broker("emptied", SeedBroker.destroy)

    def broker_left_out(self) -> None:
        """Streams go without a broker for a while; what it holds is old when it comes back."""
        self._without_broker("left out", SeedBroker.stop)

    def _without_broker(self, name: str, end: Callable[[SeedBroker], None]) -> None:
        assert self.broker is not None
        self.done.append(f"broker {name}")
        with self._interrupted() as stream:
            self._maybe_settled(stream)
            end(self.broker)
            self.work()
            if self.draw.random() < 0.5:
                stream.end(signal.SIGKILL)
                stream.may_end = True
            if name == "left out" and self.draw.random() < 0.5:
                stream.end(signal.SIGKILL)
                self.drain()
            self.broker.start()
            if stream.process.is_alive():
                self._work_while_it_lives(stream)

    def slot_moved(self) -> None:
        self._lose("slot moved", "select pg_replication_slot_advance('payments', pg_current_wal_flush_lsn())")

    def slot_dropped(self) -> None:
        self._lose("slot dropped", "select pg_drop_replication_slot('payments')")

    def slot_made_anew(self) -> None:
        self._lose(
            "slot made anew",
            "select pg_drop_replication_slot('payments')",
            "select pg_create_logical_replication_slot('payments', 'pgoutput')",
        )

    def slot_lost(self) -> None:
        switch = ("select pg_logical_emit_message(true, 'x', 'x')", "select pg_switch_wal()")
        self._lose(
            "slot lost",
            "alter system set max_slot_wal_keep_size = '1MB'",
            "select pg_reload_conf()",
            *switch * 4,
            "checkpoint",
        )
        with connect(autocommit=True, dbname="postgres") as connection:
            connection.execute("alter system reset max_slot_wal_keep_size")
            connection.execute("select pg_reload_conf()")

    def _lose(self, name: str, *statements: str) -> None:
        self.done.append(name)
        landed = self.landed()
        self.work()
        processes.wait_until(self.world.is_free, PATIENCE_SECONDS)
        self.workload.end_long_transaction()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())
        self._work_through_a_slot_being_made()
        refused = self.once()
        if refused.process.exitcode != 2 or "--resnapshot" not in refused.told():
            raise ViolationError(f"{name}: the stream ended with {refused.process.exitcode}: {refused.told()}")
        if self.draw.random() < 0.5:
            self.once("--resnapshot", failures=(self._drawn_failure(SNAPSHOT_POINTS),))
        self.drain("--resnapshot")
        self.excuse_since(landed)

    def altered(self) -> None:
        table, statement = self.draw.choice(ALTERATIONS)
        self.done.append(statement)
        with self.streaming() as stream:
            self.work()
            self.workload.end_long_transaction()  # its locks would hold the change up
            with psycopg.connect(self.dsn) as connection:
                if self.draw.random() < 0.5:
                    connection.execute(f"update {table} set updated_at = updated_at + interval '1 minute'".encode())
                try:
                    connection.execute(statement.encode())
                except (psycopg.errors.DuplicateColumn, psycopg.errors.UndefinedColumn):  # done before
                    connection.rollback()
                else:
                    record_anew(connection, table)
            self.workload.close()  # plans and row types are made anew
            self.work()
            self.settle(stream)

    def stopped(self) -> None:
        """A column gets a type that its contract does not take: its table stops, the others go on; it is mended."""
        self.done.append("a table that does not fit")
        self.workload.end_long_transaction()
        landed = self.landed()
        self.may_be_quarantined.add("customers")
        change = "alter table core.customers alter column retention_until type {0} using retention_until::{0}"
        with self.streaming() as stream:
            self._alter(change.format("text"))
            self.work()
            self.settle(stream)
            if self.draw.random() < 0.5:
                self._alter(change.format("date"))
                self.work()
                self.settle(stream)
        self.workload.end_long_transaction()
        self._alter(change.format("date"))
        self.work()
        self.drain()
        self.excuse_since(landed, "customers")

    def _alter(self, statement: str) -> None:
        self.workload.end_long_transaction()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.encode())
        self.workload.close()  # plans and row types are made anew

    def compacted(self) -> None:
        """Files are merged while a stream lands; now and then it takes more than one attempt."""
        with self.streaming() as stream:
            self.work()
            self.settle(stream)
            for failures in ((self._drawn_failure(COMPACTION_POINTS),), ()):
                merging = self._run("compact", failures=failures)
                self.work()
                code = merging.end(signal.SIGCONT)
                if code not in ((0, -signal.SIGKILL) if failures else (0,)):
                    raise ViolationError(f"a compaction ended with {code}: {merging.told()}")
            self.settle(stream)

    def restored(self) -> None:
        """The store goes back to what it was; what was committed since is gone, and the clients know it."""
        self.done.append("restored")
        self.workload.end_long_transaction()
        self.work()
        backup.backup()
        self.work()
        moment = self._now()
        self.work()
        landed = self.landed()
        self.work()
        gone = self.history()
        self.workload.close()
        backup.restore(moment)
        self._forget(gone, landed)
        self._work_through_a_slot_being_made()
        self.drain()
        self.excuse_since(self._base)

    def _forget(self, gone: list[Event], landed: set[int]) -> None:
        """Let the history go on from what a restore brought back: the log need not tell that."""
        known = self.expected_of(gone, landed)
        for entity in {event.entity for event in known.events}:
            known.excused.add(len(known.events))
            known.events.append(Event(0, entity, None, None))
        for event in self.history():
            known.excused.add(len(known.events))
            known.events.append(event)
        self._past, self._excused = known, set()
        self._base = {event.n for event in self.history()}

    def expected_of(self, events: list[Event], landed: set[int]) -> Expected:
        """Return what was committed before the last restore, and these events since; what has not landed is excused."""
        known = Expected(list(self._past.events), set(self._past.excused))
        for event in events:
            if event.n in self._base:
                continue
            if event.n in self._excused or event.n not in landed or event.is_excused:
                known.excused.add(len(known.events))
            known.events.append(event)
        return known

    @contextmanager
    def _interrupted(self) -> Iterator[Stream]:
        """Run a stream that loses its server meanwhile: it may end with a message, or go on by itself."""
        with self.streaming() as stream:
            stream.may_end = True
            yield stream
            if not stream.process.is_alive() and stream.process.exitcode not in (2, -signal.SIGKILL):
                raise ViolationError(f"the stream ended with {stream.process.exitcode}: {stream.told()}")

    def _maybe_settled(self, stream: Stream) -> None:
        self.work()
        if self.draw.random() < 0.5:
            self.settle(stream)
            self.work()

    def _work_while_it_lives(self, stream: Stream) -> None:
        for _ in range(self.draw.randint(1, 3)):
            self.work()
            if not self.settle(stream):
                break

    def _end_backends(self, condition: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {condition}".encode())

    def _now(self) -> datetime:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute("select clock_timestamp()").fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment


FAULTS: dict[Callable[[Simulation], None], int] = {
    Simulation.killed_at_a_point: 8,
    Simulation.killed: 2,
    Simulation.disk_full: 3,
    Simulation.delivered_again: 2,
    Simulation.left_behind: 2,
    Simulation.second_stream: 1,
    Simulation.connection_ended: 2,
    Simulation.server_killed: 3,
    Simulation.server_restarted: 1,
    Simulation.network_cut: 3,
    Simulation.slot_moved: 1,
    Simulation.slot_dropped: 1,
    Simulation.slot_made_anew: 1,
    Simulation.slot_lost: 1,
    Simulation.altered: 3,
    Simulation.stopped: 1,
    Simulation.compacted: 3,
    Simulation.restored: 2,
}

BROKER_FAULTS: dict[Callable[[Simulation], None], int] = {
    Simulation.broker_killed: 6,
    Simulation.broker_emptied: 3,
    Simulation.broker_left_out: 3,
}


def _is_asleep(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state == "T"


def play(world: World, seed: int, chosen: Sequence[Callable[[Simulation], None]] = ()) -> list[str]:
    """Play one seed and return what failed in it: what is drawn, or chosen.

    Raises:
        ViolationError: with all that is needed to understand.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"seed-{seed}-", dir=world.folder))
    draw = Random(seed)  # noqa: S311 (a repeatable draw)
    broker = SeedBroker(folder, processes.free_port()) if draw.random() < 0.4 else None
    documents = world.documents() if draw.random() < 0.2 else None
    with world.database(f"seed_{seed}") as own_dsn:
        world.drop_slot()
        workload = Workload(own_dsn, draw)
        simulation = Simulation(world, draw, own_dsn, folder, workload, broker, documents)
        try:
            if broker is not None:
                simulation.done.append("with a broker")
                broker.start()
            if documents is not None:
                simulation.done.append("with copies")
            simulation.play(chosen)
        except Exception as error:
            told = "; ".join(simulation.done)
            raise ViolationError(f"seed {seed} ({told}): {error}") from error
        finally:
            for process in simulation.processes:
                process.kill()
            workload.close()
            world.proxy.heal()
            if broker is not None:
                broker.destroy()
            server.start()
            world.drop_slot()
    shutil.rmtree(folder)
    return simulation.done


def main() -> int:
    """Play seeds from the command line and print each; return the exit code."""
    parser = argparse.ArgumentParser(description="Play seeds of faults.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no server behind
    failed = 0
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as found:
        for seed in range(given.seed, given.seed + given.seeds):
            began = time.monotonic()
            try:
                played = play(found, seed)
                print(f"seed {seed}: {'; '.join(played)} ({time.monotonic() - began:.1f} s)", flush=True)
            except ViolationError as error:
                failed += 1
                print(f"FAILED {error}", flush=True)
    print(f"{given.seeds} seeds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
