"""The standby: nothing acknowledged is lost when the primary is killed, slots go on, and no old primary returns."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT, settings
from payments.systems import folders, processes, statuses
from payments.systems.oltp import nodes, replica, server
from payments.systems.oltp.check import CheckResult, check
from payments.systems.oltp.connection import connect, dsn
from payments.systems.oltp.data_folders import read_roles
from payments.systems.oltp.migrations import migrate
from payments.systems.oltp.postgres import Cluster, cluster
from tests.systems.shop import Shop
from tests.systems.stores import kill, note, noted, own_store

WORKERS = 3


@dataclass
class Traffic:
    """Payments from several clients at once, which reconnect after errors and remember what they were told."""

    acknowledged: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Pay until told to stop."""
        while not self.stop.is_set():
            try:
                with connect(autocommit=True) as connection:
                    while not self.stop.is_set():
                        self.acknowledged.append(Shop(connection).pay(1_000))
            except (psycopg.OperationalError, UsageError):  # what a client sees of a failover, and nothing else
                self.stop.wait(0.01)

    def more_than(self, count: int) -> Callable[[], bool]:
        """Return whether so many payments were acknowledged, as a condition to wait for."""
        return lambda: len(self.acknowledged) > count


@dataclass(frozen=True)
class Disaster:
    """What was found after a primary was killed under traffic and its standby took over."""

    acknowledged_before: int
    acknowledged: set[str]
    charges: set[str]
    checks: list[CheckResult]
    slots_before: tuple[replica.Slot, ...]
    changes: bytes
    old: Cluster
    failover: replica.Failover


@pytest.fixture(scope="module")
def disaster(reachable_folder: Path) -> Iterator[Disaster]:
    """Kill the primary under traffic, fail over in synchronous mode, and let the traffic go on."""
    with own_store(reachable_folder):
        server.start()
        migrate()
        with connect(autocommit=True) as connection:
            Shop(connection).open()
            connection.execute("create publication charges for table core.charges with (publish = 'insert')")
            connection.execute("select pg_create_logical_replication_slot('changes', 'pgoutput', failover => true)")
        started = replica.start(synchronous=True)
        assert started.sync_state == "sync"
        traffic = Traffic()
        threads = [threading.Thread(target=traffic.run) for _ in range(WORKERS)]
        try:
            for thread in threads:
                thread.start()
            assert processes.wait_until(traffic.more_than(50), 60)
            changes = []

            def reader_is_covered() -> bool:
                changes.append(read_changes())
                return all(slot.is_ready for slot in _status().slots)

            # A slot is ready for a failover once its reader is past what the standby was copied from.
            assert processes.wait_until(reader_is_covered, 60)
            slots_before = _status().slots
            assert processes.wait_until(traffic.more_than(len(traffic.acknowledged) + 20), 60)
            old = cluster()
            kill(old)
            acknowledged_before = len(traffic.acknowledged)
            done = replica.failover()
            assert processes.wait_until(traffic.more_than(len(traffic.acknowledged) + 50), 60)
        finally:
            traffic.stop.set()
            for thread in threads:
                thread.join()
        with connect(autocommit=True) as connection:
            charges = {charge_id for (charge_id,) in connection.execute("select charge_id from core.charges")}
        changes.append(read_changes())
        acknowledged = set(traffic.acknowledged)
        yield Disaster(acknowledged_before, acknowledged, charges, check(), slots_before, b"".join(changes), old, done)


def read_changes() -> bytes:
    """Read what the logical slot has, and let it advance."""
    with connect(autocommit=True) as connection:
        rows = connection.execute(
            """
            select data
            from pg_logical_slot_get_binary_changes(
                'changes', null, null, 'proto_version', '1', 'publication_names', 'charges'
            )
            """
        )
        return b"".join(data for (data,) in rows)


def _status() -> replica.ReplicaStatus:
    found = replica.status()
    assert found is not None
    return found


def test_no_acknowledged_payment_is_lost_and_the_books_are_right(disaster: Disaster) -> None:
    assert disaster.acknowledged - disaster.charges == set()
    assert len(disaster.acknowledged) >= disaster.acknowledged_before + 50
    assert not disaster.failover.was_planned
    assert disaster.failover.timeline == 2
    assert [result.name for result in disaster.checks if not result.passed] == []


def test_the_logical_slot_goes_on_after_the_failover(disaster: Disaster) -> None:
    assert disaster.slots_before == (replica.Slot("changes", is_ready=True),)
    missing = [charge_id for charge_id in disaster.acknowledged if charge_id.encode() not in disaster.changes]
    assert missing == [], "its reader sees every payment, from before and after"


def test_the_old_primary_cannot_come_back(disaster: Disaster) -> None:
    port = cluster().postmaster()
    assert port is not None
    assert port.port == settings().oltp_port
    assert cluster().name != disaster.old.name
    assert disaster.old.run("pg_ctl", "-D", str(disaster.old.data), "-w", "start").returncode != 0
    server.stop()
    server.start()
    assert disaster.old.postmaster() is None
    with connect() as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)


def test_a_new_standby_replaces_the_lost_one_and_takes_over_in_order(disaster: Disaster) -> None:
    replica.start(synchronous=False)
    note(1)
    done = replica.failover()
    assert done.was_planned
    assert done.timeline == 3
    assert noted() == [1], "a primary that is stopped in order hands over everything, waited for or not"
    assert not disaster.old.data.exists(), "only the last former primary is kept"
    assert done.set_aside is not None


@pytest.fixture
def store(reachable_folder: Path) -> Iterator[Path]:
    with own_store(reachable_folder) as home:
        server.start()
        yield home


def test_the_mode_follows_the_command_and_a_lost_standby_blocks_until_it_is_dropped(store: Path) -> None:
    assert replica.start().is_synchronous
    assert not replica.start(synchronous=False).is_synchronous
    assert replica.start(synchronous=True).sync_state == "sync"
    row = next(found for found in statuses() if found.store == replica.STORE)
    assert row.is_running
    assert "synchronous, streaming" in row.missing[0]
    note(1)
    server.stop()
    assert not _status().is_running
    server.start()
    assert processes.wait_until(lambda: _status().sync_state == "sync", 30)
    standby = nodes.standby_of(cluster())
    assert standby is not None
    kill(standby)
    writer = threading.Thread(target=note, args=(2,))
    writer.start()
    with connect(autocommit=True) as connection:

        def waits() -> bool:
            query = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
            return connection.execute(query).fetchone() == (1,)

        assert processes.wait_until(waits, 30), "a commit must not be acknowledged without the standby"
        assert "commits wait for it" in _status().notes()[0]
        assert replica.stop()
        writer.join(30)
        assert not writer.is_alive()
        assert connection.execute("select count(*) from pg_replication_slots").fetchone() == (0,)
    assert noted() == [1, 2]
    assert not replica.stop()
    assert replica.status() is None
    assert not standby.data.exists()


def test_a_failover_that_was_cut_off_is_finished_by_the_next_start(store: Path) -> None:
    replica.start(synchronous=True)
    note(1)
    primary, standby = cluster(), nodes.standby_of(cluster())
    assert standby is not None
    kill(primary)
    standby.stop()
    nodes.become_primary(primary, standby.name, read_roles(primary.folder))
    server.start()
    note(2)
    assert noted() == [1, 2]
    with connect() as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)


def test_wrong_commands_give_one_line(store: Path) -> None:
    with pytest.raises(UsageError, match="no standby"):
        replica.failover()
    with socket.socket() as occupier:
        occupier.bind(("127.0.0.1", settings().replica_port))
        occupier.listen()
        with pytest.raises(UsageError, match="set PAYMENTS_REPLICA_PORT to a free port"):
            replica.start()
    assert replica.status() is None
    replica.start(synchronous=False)
    standby = nodes.standby_of(cluster())
    assert standby is not None
    standby.stop()
    with pytest.raises(UsageError, match="does not follow the primary"):
        replica.failover()
    note(1)
    assert noted() == [1]
    server.stop()
    for command in (replica.start, replica.stop):
        with pytest.raises(UsageError, match="does not run"):
            command()


def test_the_replication_role_replicates_and_nothing_else(store: Path) -> None:
    replica.start()
    with connect(autocommit=True) as connection:
        secret = cluster().replicator_password_file
        assert secret.stat().st_mode & 0o777 == 0o600
        row = connection.execute(
            """
            select rolsuper, rolreplication, starts_with(rolpassword, 'SCRAM-SHA-256$')
            from pg_authid
            where rolname = 'replicator'
            """
        ).fetchone()
    assert row == (False, True, True)
    password = secret.read_text().strip().rpartition(":")[2]
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        psycopg.connect(dsn(), user="replicator", password=password)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(dsn("postgres"), user="replicator", password="wrong")


def test_all_of_it_runs_for_an_ordinary_user(reachable_folder: Path) -> None:
    user = folders.server_user()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}")
    python = next((path for path in candidates if user.can_run(Path(path))), None)
    if python is None:
        pytest.skip(f"no {version} that the user {user.name} can run")
    code = """
from payments.systems.oltp import backup, replica, server
server.start()
try:
    taken = backup.backup()
    replica.start(synchronous=True)
    replica.failover()
    print("timeline", backup.restore().timeline)
finally:
    server.destroy()
"""
    with own_store(reachable_folder) as home:
        own = home / "of the user"
        own.mkdir()
        user.own(own)
        environment = {
            **os.environ,
            "PAYMENTS_HOME": str(own / "state"),
            "PYTHONPATH": os.pathsep.join([str(PROJECT_ROOT), *(e for e in sys.path if e.endswith("site-packages"))]),
            "HOME": str(own),
        }
        found: subprocess.CompletedProcess[str] = user.run([python, "-c", code], cwd=own, env=environment)
    assert found.returncode == 0, found.stdout
    assert found.stdout.strip() == "timeline 3"
