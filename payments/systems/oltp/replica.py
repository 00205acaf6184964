"""A streaming standby of the embedded PostgreSQL, and its promotion when the primary is lost.

In synchronous mode a commit is acknowledged when the standby, too, has it on disk: a failover then loses nothing that a
client was told. Logical slots made with ``failover = true`` are kept up on the standby (from PostgreSQL 17 on), so that
those who read changes go on after a failover.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from psycopg import Connection, sql

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.folders import write_private
from payments.systems.oltp import nodes, wal
from payments.systems.oltp.connection import connect
from payments.systems.oltp.data_folders import PARTIAL, Roles, next_name, read_roles, rename_durably, write_roles
from payments.systems.oltp.nodes import FAILOVER_SLOTS_VERSION, REPLICA
from payments.systems.oltp.postgres import REPLICATOR, Cluster
from payments.systems.status import StoreStatus

STORE = "PostgreSQL standby"
_CATCH_UP_SECONDS = 60


@dataclass(frozen=True)
class Slot:
    """A logical slot that should follow a failover, and whether the standby has it ready for one."""

    name: str
    is_ready: bool


@dataclass(frozen=True)
class ReplicaStatus:
    """The standby as it was found.

    ``state`` is ``streaming`` in good order, None when the primary does not feed it; ``sync_state`` is ``sync`` when
    commits wait for it. ``lag_bytes`` is WAL of the primary that it has not replayed, None when that cannot be known.
    """

    where: str
    is_running: bool
    is_synchronous: bool
    state: str | None
    sync_state: str | None
    lag_bytes: int | None
    slots: tuple[Slot, ...]

    def notes(self) -> tuple[str, ...]:
        """Return what an operator should know, one line each."""
        mode = "synchronous" if self.is_synchronous else "asynchronous"
        if self.state is None:
            waits = ": commits wait for it" if self.is_synchronous else ""
            return (f"{mode}, follows no primary{waits}",)
        waiting = [slot.name for slot in self.slots if not slot.is_ready]
        return (
            f"{mode}, {self.state}, {self.lag_bytes:,} bytes behind",
            *([f"slots not ready for a failover: {', '.join(waiting)}"] if waiting else []),
        )


@dataclass(frozen=True)
class Failover:
    """A finished failover: ``was_planned`` when the primary still ran; ``seconds`` until the new one took writes."""

    was_planned: bool
    timeline: int
    seconds: float
    set_aside: str | None


def start(*, synchronous: bool | None = None) -> ReplicaStatus:
    """Make and start the standby; one that exists is started and changed to the wanted mode.

    Args:
        synchronous: whether commits wait for the standby; None keeps its mode, or takes the setting for a new one.

    Raises:
        UsageError: a server is given, the primary does not run, the port is taken, or the standby does not follow.
    """
    primary = nodes.embedded()
    with processes.exclusively(primary.lock_file):
        require_running(primary)
        roles = read_roles(primary.folder)
        wanted = roles.is_synchronous if synchronous is None else synchronous
        if roles.standby is None:
            wanted = settings().synchronous_replica if synchronous is None else synchronous
            processes.require_free_port(settings().replica_port, "the standby", "PAYMENTS_REPLICA_PORT")
            roles = replace(roles, standby=_copy(primary), is_synchronous=False)
            _assign(primary, roles)
        nodes.start_standby(primary)
        with connect(autocommit=True, dbname="postgres") as connection:
            # In this order, or commits would wait for a standby that has yet to come up.
            _await(lambda: _feed(connection)[0] == "streaming", primary, "does not stream from the primary")
            _assign(primary, replace(roles, is_synchronous=wanted))
            expected = "sync" if wanted else "async"
            _await(lambda: _feed(connection)[1] == expected, primary, f"does not become {expected}")
            return _describe(primary, connection)


def stop() -> bool:
    """End replication and delete the standby; return whether there was one. Commits no longer wait for it at once.

    Raises:
        UsageError: a server is given or the primary does not run.
    """
    primary = nodes.embedded()
    with processes.exclusively(primary.lock_file):
        if nodes.standby_of(primary) is None:
            return False
        require_running(primary)
        detach(primary)
        return True


def status() -> ReplicaStatus | None:
    """Return how the standby is, or None where none was made.

    Raises:
        UsageError: a server is given.
    """
    primary = nodes.embedded()
    standby = nodes.standby_of(primary)
    if standby is None:
        return None
    try:
        with connect(autocommit=True, dbname="postgres") as connection:
            return _describe(primary, connection)
    except UsageError:
        return ReplicaStatus(
            _where(standby), standby.postmaster() is not None, _is_synchronous(primary), None, None, None, ()
        )


def store_status() -> StoreStatus | None:
    """Return the standby as a row of ``payments status``, or None where there is none."""
    if settings().oltp_dsn is not None:
        return None
    found = status()
    return None if found is None else StoreStatus(STORE, found.is_running, None, found.where, None, None, found.notes())


def failover() -> Failover:
    """Make the standby the primary, on the primary's port; the old primary is stopped first and can never return.

    A primary that still runs is stopped in order and hands over all it has. The old data folder is set aside until the
    next failover or restore.

    Raises:
        UsageError: a server is given, there is no standby, or it does not follow a primary that runs.
    """
    primary = nodes.embedded()
    with processes.exclusively(primary.lock_file):
        began = time.monotonic()
        standby = nodes.standby_of(primary)
        if standby is None:
            raise UsageError("There is no standby to take over: make one with payments replica start.")
        was_planned = primary.postmaster() is not None
        if was_planned:
            _require_feed()
        primary.stop()
        primary.end_orphans()
        standby.stop()
        for stopped in (primary, standby):  # the archive must not miss what the lost primary had yet to bring there
            wal.archive_rest(stopped)
        promoted = nodes.become_primary(primary, standby.name, read_roles(primary.folder))
        nodes.start_primary(promoted)
        seconds = time.monotonic() - began
        nodes.clear_away(promoted)
        set_aside = str(primary.data) if primary.data.exists() else None
        return Failover(was_planned, wal.timeline_of(promoted), seconds, set_aside)


def detach(primary: Cluster) -> None:
    """Let the primary go on alone, whether it runs or not, and delete the standby."""
    standby = nodes.standby_of(primary)
    if standby is None:
        return
    alone = replace(read_roles(primary.folder), is_synchronous=False)
    _assign(primary, alone)  # first nobody waits for it, then it goes
    standby.stop()
    _assign(primary, replace(alone, standby=None))
    if primary.postmaster() is not None:
        with connect(autocommit=True, dbname="postgres") as connection:
            drop_slot(connection)
    nodes.discard(standby)


def require_running(primary: Cluster) -> None:
    """Raise a UsageError when the primary does not run."""
    if primary.postmaster() is None:
        raise UsageError("The embedded PostgreSQL does not run: run payments up first.")


def ensure_replicator(connection: Connection, primary: Cluster) -> None:
    """Make the role that replicates, whose password only its file knows."""
    if connection.execute("select from pg_roles where rolname = %s", (REPLICATOR,)).fetchone() is None:
        connection.execute(sql.SQL("create role {} login replication").format(sql.Identifier(REPLICATOR)))
    connection.execute(sql.SQL("grant connect on database postgres to {}").format(sql.Identifier(REPLICATOR)))
    if not primary.replicator_password_file.exists():
        write_private(primary.replicator_password_file, f"*:*:*:{REPLICATOR}:{secrets.token_hex(24)}\n", primary.user)
    password = primary.replicator_password_file.read_text(encoding="utf-8").strip().rpartition(":")[2]
    digest = connection.pgconn.encrypt_password(password.encode(), REPLICATOR.encode(), b"scram-sha-256")
    connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(REPLICATOR), digest.decode()))


def drop_slot(connection: Connection) -> None:
    """Drop the standby's slot once nobody reads it, or the primary would keep its WAL for ever."""

    def dropped() -> bool:
        connection.execute(
            """
            select pg_drop_replication_slot(slot_name)
            from pg_replication_slots
            where slot_name = %s and not active
            """,
            (REPLICA,),
        )
        found = connection.execute("select from pg_replication_slots where slot_name = %s", (REPLICA,)).fetchone()
        return found is None

    if not processes.wait_until(dropped, _CATCH_UP_SECONDS):
        raise UsageError(f"The replication slot {REPLICA} is in use by another program: end that program.")


def _assign(primary: Cluster, roles: Roles) -> None:
    """Write the roles and let a running primary follow them."""
    write_roles(primary.folder, roles)
    if primary.postmaster() is not None:
        primary.reconfigure(nodes.primary_configuration(primary))


def _copy(primary: Cluster) -> str:
    """Copy the running primary and return the name of the new data folder."""
    with connect(autocommit=True, dbname="postgres") as connection:
        ensure_replicator(connection, primary)
        drop_slot(connection)
        # It keeps the WAL from here on until the standby has it.
        connection.execute("select pg_create_physical_replication_slot(%s, true)", (REPLICA,))
    name = next_name(primary.folder)
    partial = primary.named(name + PARTIAL)
    partial.data.mkdir()
    partial.user.own(partial.data)
    copied = primary.run(
        "pg_basebackup",
        *("-D", str(partial.data), "-d", nodes.conninfo(primary, application_name=REPLICA)),
        *("--no-password", "--checkpoint=fast", "--wal-method=stream", f"--slot={REPLICA}"),
    )
    if copied.returncode != 0:
        nodes.discard(partial)
        raise UsageError(f"The primary could not be copied: {last_line(copied.stdout)}")
    write_private(partial.data / "standby.signal", "", partial.user)
    rename_durably(partial.data, primary.named(name).data)
    return name


def last_line(output: str) -> str:
    """Return the last line that a program printed."""
    return (output.strip().splitlines() or ["it printed nothing"])[-1]


def _feed(connection: Connection) -> tuple[str | None, str | None, int | None]:
    """Return how the primary feeds the standby: state, sync state, and bytes that are not replayed yet."""
    row = connection.execute(
        """
        select state, sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint
        from pg_stat_replication
        where application_name = %s and state <> 'backup'
        """,
        (REPLICA,),
    ).fetchone()
    return (None, None, None) if row is None else (row[0], row[1], max(row[2], 0) if row[2] is not None else None)


def _await(condition: Callable[[], bool], primary: Cluster, failure: str) -> None:
    standby = nodes.standby_of(primary)
    if not processes.wait_until(condition, _CATCH_UP_SECONDS):
        log = "" if standby is None else f": see {standby.log}"
        raise UsageError(f"The standby {failure}{log}, or make it anew with payments replica stop and start.")


def _require_feed() -> None:
    with connect(autocommit=True, dbname="postgres") as connection:
        if _feed(connection)[0] != "streaming":
            raise UsageError(
                "The standby does not follow the primary, which runs: a failover would lose payments. "
                "Run payments replica start first, or payments down if the primary must go."
            )


def _describe(primary: Cluster, connection: Connection) -> ReplicaStatus:
    standby = nodes.standby_of(primary)
    if standby is None:
        raise UsageError("There is no standby: make one with payments replica start.")
    state, sync_state, lag = _feed(connection)
    is_running = standby.postmaster() is not None
    return ReplicaStatus(
        _where(standby), is_running, _is_synchronous(primary), state, sync_state, lag, _slots(primary, connection)
    )


def _slots(primary: Cluster, connection: Connection) -> tuple[Slot, ...]:
    if primary.major_version() < FAILOVER_SLOTS_VERSION:
        return ()
    names = [
        str(name)
        for (name,) in connection.execute(
            "select slot_name from pg_replication_slots where failover and not temporary order by slot_name"
        )
    ]
    ready = _ready_slots(primary) if names else set()
    return tuple(Slot(name, name in ready) for name in names)


def _ready_slots(primary: Cluster) -> set[str]:
    standby = nodes.standby_of(primary)
    running = None if standby is None else standby.postmaster()
    if running is None:
        return set()
    try:
        with connect(autocommit=True, dbname="postgres", port=running.port) as connection:
            found = connection.execute(
                """
                select slot_name
                from pg_replication_slots
                where synced and not temporary and invalidation_reason is null
                """
            )
            return {str(name) for (name,) in found}
    except UsageError:
        return set()


def _is_synchronous(primary: Cluster) -> bool:
    return read_roles(primary.folder).is_synchronous


def _where(standby: Cluster) -> str:
    running = standby.postmaster()
    return f"{processes.LOOPBACK}:{settings().replica_port if running is None else running.port}"
