"""A disaster, rehearsed: lose the primary under traffic, then go back to a moment, and measure what that costs.

All of it happens in a scratch state folder on free ports. RPO (recovery point objective) is measured as payments that a
client was told about, or that were committed before the wanted moment, and are missing afterwards. RTO (recovery time
objective) is measured in seconds until the store takes a write again.
"""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from psycopg import Connection, sql

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.oltp import backup, nodes, replica, server
from payments.systems.oltp.check import check
from payments.systems.oltp.connection import connect
from payments.systems.oltp.migrations import migrate
from payments.systems.oltp.nodes import FAILOVER_SLOTS_VERSION

_SLOT, _PUBLICATION = "drill", "drill"
_READY_SECONDS = 60
_WRITABLE_SECONDS = 60


class TrafficReport(Protocol):
    """What live traffic says about itself: the charges, as (merchant, charge), that a client was told succeeded."""

    @property
    def acknowledged(self) -> list[tuple[str, str]]:
        """The acknowledged charges."""


# Runs until the event is set, over the loss of its server; nothing about it is known here.
Traffic = Callable[[threading.Event], TrafficReport]


@dataclass(frozen=True)
class Recovery:
    """One recovery: of so many payments, how many are lost or too many, how long until a write, and what is wrong."""

    name: str
    expected: int
    lost: int
    surplus: int
    seconds: float
    detail: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class DrillReport:
    """What a drill measured. ``seed`` chose the moment of the loss and the moment of the restore."""

    seed: int
    is_synchronous: bool
    recoveries: tuple[Recovery, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong: only an asynchronous standby may lose what it had not got yet."""
        return all(
            not recovery.faults and not recovery.surplus and (not recovery.lost or not self.is_synchronous)
            for recovery in self.recoveries
        )


def drill(*, traffic: Traffic, seconds: float, seed: int, synchronous: bool) -> DrillReport:
    """Rehearse a failover and a restore in a scratch state folder.

    Args:
        traffic: makes payments through ``connect()``, in a migrated and empty store, until told to stop.
        seconds: how long the traffic runs before the loss at most, and twice as long as after it.
        seed: chooses the moments.
        synchronous: whether commits wait for the standby.

    Raises:
        UsageError: a server is given, or a step cannot be done at all.
    """
    nodes.embedded()
    with _scratch_platform():
        server.start()
        migrate()
        _stamp_commits()
        backup.backup()
        replica.start(synchronous=synchronous)
        chance = random.Random(seed)  # noqa: S311 (a choice of moments, no secret)
        failed_over = _lose_the_primary(traffic, seconds, chance)
        restored = _go_back(chance)
        return DrillReport(seed, synchronous, (failed_over, restored))


def _lose_the_primary(traffic: Traffic, seconds: float, chance: random.Random) -> Recovery:
    has_slots = nodes.embedded().major_version() >= FAILOVER_SLOTS_VERSION
    if has_slots:
        _make_slot()
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running_traffic = pool.submit(traffic, stop)
        try:
            recovered_in = _kill_and_fail_over(seconds, chance, has_slots)
        finally:
            stop.set()
        acknowledged = set(running_traffic.result().acknowledged)
    with connect(autocommit=True) as connection:
        held = set(connection.execute("select merchant_id, charge_id from core.charges where status = 'succeeded'"))
        faults = _broken()
        if has_slots and not _read_slot(connection):
            faults.append("the logical slot gives no changes after the failover")
    return Recovery(
        "the primary is killed, the standby takes over",
        len(acknowledged),
        len(acknowledged - held),
        0,
        recovered_in,
        "acknowledged payments" + ("; the logical slot goes on" if has_slots else ""),
        tuple(faults),
    )


def _kill_and_fail_over(seconds: float, chance: random.Random, has_slots: bool) -> float:
    """Let traffic run, kill the primary, fail over, and return the seconds between the loss and the next write."""
    time.sleep(seconds * (1 + chance.random()) / 2)
    if has_slots:
        _await_slot()
    primary = nodes.embedded()
    running = primary.postmaster()
    if running is None:
        raise UsageError(f"The primary ended by itself: see {primary.log}.")
    processes.kill(running.pid)
    lost_at = time.monotonic()
    replica.failover()
    recovered_at = _await_write()
    time.sleep(seconds / 2)
    return recovered_at - lost_at


def _go_back(chance: random.Random) -> Recovery:
    """Restore to a random moment of the traffic and compare with what was committed until then."""
    earliest = backup.backups(nodes.embedded())[0].ended_at
    with connect(autocommit=True) as connection:
        row = connection.execute(
            """
            select min(c.committed_at), max(c.committed_at)
            from core.balance_transactions as b
            cross join lateral (select pg_xact_commit_timestamp(b.xmin) as committed_at) as c
            where c.committed_at > %s
            """,
            (earliest,),
        ).fetchone()
        if row is None or row[0] is None:
            raise UsageError("The traffic made no payment after the backup: let the drill run longer.")
        moment = row[0] + (row[1] - row[0]) * chance.random()
        expected = _movements(connection, moment)
    began = time.monotonic()
    backup.restore(moment)
    seconds = _await_write() - began
    with connect(autocommit=True) as connection:
        held = _movements(connection, None)
    return Recovery(
        f"a restore to {moment.isoformat()}",
        len(expected),
        len(expected - held),
        len(held - expected),
        seconds,
        "movements of money committed before it",
        tuple(_broken()),
    )


def _movements(connection: Connection, until: datetime | None) -> set[tuple[str, ...]]:
    """Return the movements of money, which are never changed, that were committed until a moment."""
    return set(
        connection.execute(
            """
            select b::text
            from core.balance_transactions as b
            where %(until)s::timestamptz is null or pg_xact_commit_timestamp(b.xmin) <= %(until)s
            """,
            {"until": until},
        )
    )


def _stamp_commits() -> None:
    """Let the server keep the moment of every commit: what a restore to a moment must have can then be counted."""
    with connect(autocommit=True) as connection:
        connection.execute("alter system set track_commit_timestamp = on")
    server.stop()
    server.start()


def _make_slot() -> None:
    with connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("create publication {} for table core.charges with (publish = 'insert')").format(
                sql.Identifier(_PUBLICATION)
            )
        )
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', failover => true)", (_SLOT,))


def _await_slot() -> None:
    """Read the slot, as its reader would, until the standby has it ready."""

    def is_ready() -> bool:
        with connect(autocommit=True) as connection:
            _read_slot(connection)
        found = replica.status()
        return found is not None and all(slot.is_ready for slot in found.slots)

    if not processes.wait_until(is_ready, _READY_SECONDS):
        raise UsageError("The standby does not get the logical slot ready: see its log.")


def _read_slot(connection: Connection) -> int:
    row = connection.execute(
        """
        select count(*)
        from pg_logical_slot_get_binary_changes(%s, null, null, 'proto_version', '1', 'publication_names', %s)
        """,
        (_SLOT, _PUBLICATION),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _await_write() -> float:
    """Return the moment (of the monotonic clock) at which the store took a write."""

    def writes() -> bool:
        try:
            with connect(autocommit=True, dbname="postgres") as connection:
                connection.execute("create table if not exists drill (written_at timestamptz)")
                connection.execute("insert into drill values (clock_timestamp())")
                return True
        except UsageError:
            return False

    if not processes.wait_until(writes, _WRITABLE_SECONDS):
        raise UsageError("The store takes no write after its recovery: run payments status.")
    return time.monotonic()


def _broken() -> list[str]:
    return [f"{result.name}: {result.detail}" for result in check() if not result.passed]


@contextmanager
def _scratch_platform() -> Iterator[None]:
    """Let every command of this process work on a new state folder, and delete it in the end."""
    known = settings()
    with tempfile.TemporaryDirectory(prefix="payments drill ") as folder:
        Path(folder).chmod(0o755)  # the server's user has to reach it
        home = Path(folder) / "home"
        scratch = {
            "PAYMENTS_HOME": str(home),
            "PAYMENTS_KEY_RING": str(home / "keys" / "ring.json"),
            "PAYMENTS_OLTP_PORT": str(processes.free_port()),
            "PAYMENTS_REPLICA_PORT": str(processes.free_port()),
            "PAYMENTS_DOCUMENTS_PORT": str(processes.free_port()),
            **({} if known.postgres_bin is None else {"PAYMENTS_POSTGRES_BIN": str(known.postgres_bin.resolve())}),
        }
        before = {name: os.environ.get(name) for name in scratch}
        os.environ.update(scratch)
        settings.cache_clear()
        try:
            yield
        finally:
            try:
                server.destroy()
            finally:
                for name, value in before.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value
                settings.cache_clear()
