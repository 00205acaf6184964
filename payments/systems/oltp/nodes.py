"""The servers of the embedded store: the primary and, where one was made, its standby, each with its configuration."""

import shlex
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from psycopg.conninfo import make_conninfo

from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp import tls
from payments.systems.oltp.conf import setting
from payments.systems.oltp.connection import connect
from payments.systems.oltp.data_folders import PARTIAL, Roles, next_name, read_roles, rename_durably, write_roles
from payments.systems.oltp.postgres import REPLICATOR, Cluster, cluster
from payments.systems.processes import LOOPBACK, wait_until

# The name of the standby and of its replication slot, whichever data folder it has.
REPLICA = "replica"
# The first version whose logical slots follow a failover.
FAILOVER_SLOTS_VERSION = 17
_OPEN_SECONDS = 10


def embedded() -> Cluster:
    """Return the embedded primary.

    Raises:
        UsageError: a server is given: how that one is replicated and backed up is not for this command to decide.
    """
    if settings().oltp_dsn is not None:
        raise UsageError("PAYMENTS_OLTP_DSN names a server whose replication and backups belong to its operator.")
    return cluster()


def start(primary: Cluster) -> None:
    """Start the primary and its standby, after clearing away what a killed command left half-made."""
    clear_away(primary)
    start_primary(primary)
    if read_roles(primary.folder).standby is not None:
        start_standby(primary)


def start_primary(primary: Cluster) -> None:
    """Start the primary; one that is still a standby, because a failover made it the primary, is promoted."""
    configuration = primary_configuration(primary)
    was_running, is_promoted = primary.postmaster() is not None, primary.is_standby()
    # Clients must find a primary or none, never a server that reads only.
    primary.start(settings().oltp_port, configuration, is_open=not is_promoted)
    if is_promoted:
        primary.promote()
    if is_promoted or was_running:  # it may run, but from a failover that was cut off before it let clients in
        primary.reconfigure(configuration)
        if not wait_until(_lets_in, _OPEN_SECONDS):
            raise UsageError(f"PostgreSQL runs but lets nobody in: see {primary.log}.")


def _lets_in() -> bool:
    with suppress(UsageError):
        connect(dbname="postgres").close()
        return True
    return False


def start_standby(primary: Cluster) -> None:
    """Start the standby that was made for a primary."""
    standby = standby_of(primary)
    if standby is not None:
        standby.start(settings().replica_port, _standby_configuration(primary), "PAYMENTS_REPLICA_PORT")


def stop(primary: Cluster, *modes: str) -> None:
    """Stop the primary, which sends the standby all it has, then the standby."""
    primary.stop(*modes)
    standby = standby_of(primary)
    if standby is not None:
        standby.stop(*modes)


def standby_of(primary: Cluster) -> Cluster | None:
    """Return the standby, running or not, or None where none was made."""
    name = read_roles(primary.folder).standby
    return None if name is None else primary.named(name)


def primary_configuration(primary: Cluster) -> list[str]:
    """Return what the primary's configuration says beyond that of every server, by the roles and by the archive."""
    roles = read_roles(primary.folder)
    lines = [setting("synchronous_standby_names", REPLICA if roles.is_synchronous else "")]
    if roles.standby is not None and primary.major_version() >= FAILOVER_SLOTS_VERSION:
        # A consumer of changes must never be ahead of the server that takes over.
        lines.append(setting("synchronized_standby_slots", REPLICA))
    if not primary.archive.exists():
        # Archiving begins with the first backup; until then WAL is let go, or it would pile up.
        return [*lines, setting("archive_command", "exit 0")]
    return [
        *lines,
        setting("archive_command", archive_command(primary)),
        f"archive_timeout = {settings().archive_timeout}",
        # Read in a promotion only: the new timeline must get a number that the archive does not know yet.
        setting("restore_command", restore_command(primary)),
        setting("recovery_target_timeline", "current"),
    ]


def archive_command(primary: Cluster) -> str:
    """Return the shell command that archives a file: aside, synced, renamed; never one content over another.

    The library basic_archive does the same, but a change to a library ends the archiver, which then rests for seconds.
    """
    folder = _quoted(primary.archive)
    place, aside = f"{folder}/%f", f"{folder}/%f{PARTIAL}"
    store = f'cp "%p" {aside} && sync {aside} && mv {aside} {place} && sync {folder}'
    return f'if test -f {place}; then cmp -s "%p" {place}; else {store}; fi'


def restore_command(primary: Cluster) -> str:
    """Return the shell command that fetches a file from the archive."""
    place = f"{_quoted(primary.archive)}/%f"
    return f'test -f {place} && cp {place} "%p"'


def _quoted(folder: Path) -> str:
    """Return a path for the shell, in a command in which the server replaces %f and %p."""
    return shlex.quote(str(folder)).replace("%", "%%")


def conninfo(primary: Cluster, **parameters: str) -> str:
    """Return how the replication role reaches the running primary; its password stays in its file."""
    running = primary.postmaster()
    return make_conninfo(
        "",
        host=LOOPBACK,
        port=settings().oltp_port if running is None else running.port,
        user=REPLICATOR,
        passfile=str(primary.replicator_password_file),
        **tls.client_parameters(primary.folder),
        **parameters,
    )


def become_primary(former: Cluster, name: str, roles: Roles) -> Cluster:
    """Make a stopped data folder the primary and set the former one aside, fenced; drop what was aside before.

    What is dropped is deleted by ``clear_away`` only, when the new primary runs.

    Args:
        former: the primary until now, stopped; its data folder may be gone.
        name: the data folder that takes over.
        roles: the roles to write, but for the primary, the standby and what is aside.
    """
    dropped = read_roles(former.folder).aside
    kept = former.name if former.data.exists() else None
    write_roles(former.folder, replace(roles, primary=name, standby=None, is_synchronous=False, aside=kept))
    if kept is not None:
        former.fence()
    if dropped is not None:
        _drop(former.named(dropped))
    return former.named(name)


def discard(cluster: Cluster) -> None:
    """Stop a server and delete its data folder."""
    cluster.stop("immediate")
    _drop(cluster)
    clear_away(cluster)


def clear_away(cluster: Cluster) -> None:
    """Delete the data folders beside this one that are half-made or were dropped."""
    for left in cluster.folder.glob(f"node-*{PARTIAL}"):
        partial = cluster.named(left.name)
        partial.stop("immediate")
        shutil.rmtree(partial.data)
        partial.log.unlink(missing_ok=True)


def _drop(cluster: Cluster) -> None:
    """Let a data folder count as half-made: from then on it is deleted, whatever happens in between."""
    cluster.log.unlink(missing_ok=True)
    if cluster.data.exists() and cluster.data.suffix != PARTIAL:
        dropped = cluster.folder / (next_name(cluster.folder) + PARTIAL)
        rename_durably(cluster.data, dropped)


def _standby_configuration(primary: Cluster) -> list[str]:
    lines = [
        # Its name is what synchronous_standby_names means; the database is where it asks for logical slots.
        setting("primary_conninfo", conninfo(primary, application_name=REPLICA, dbname="postgres")),
        setting("primary_slot_name", REPLICA),
        "hot_standby_feedback = on",
        setting("archive_command", "exit 0"),
    ]
    return [*lines, "sync_replication_slots = on"] if primary.major_version() >= FAILOVER_SLOTS_VERSION else lines
