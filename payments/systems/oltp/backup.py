"""Base backups of the embedded PostgreSQL with their archived WAL, and the restore to a moment.

A backup and the WAL archived since can rebuild the store as it was at any moment after the backup. A restore builds the
wanted state beside the present one, starts it in private, and only then lets it take over: a restore that fails changes
nothing. It begins a new timeline; the one that was left stays in the archive, so that a wrong restore can be undone by
restoring to a moment before it.
"""

import contextlib
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from psycopg import Connection

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.folders import folder_bytes, write_private
from payments.systems.oltp import nodes, replica, wal
from payments.systems.oltp.conf import setting
from payments.systems.oltp.connection import connect
from payments.systems.oltp.data_folders import PARTIAL, Abandoned, next_name, read_roles, rename_durably, write_durably
from payments.systems.oltp.postgres import Cluster
from payments.systems.oltp.replica import last_line

_ARCHIVE_SECONDS = 60
_RETRY_SECONDS = 2
_POLL_SECONDS = 0.05
_DESCRIPTION = "backup.json"
_TARGET_BEYOND_END = "recovery ended before configured recovery target was reached"


@dataclass(frozen=True)
class Backup:
    """A base backup. Positions are LSNs, moments UTC; from ``ended_at`` on, a moment can be restored with it."""

    label: str
    timeline: int
    start_lsn: str
    end_lsn: str
    started_at: datetime
    ended_at: datetime
    size_bytes: int


@dataclass(frozen=True)
class Restored:
    """A finished restore: ``seconds`` until the store took writes, ``last_commit`` the last transaction it holds."""

    backup: Backup
    timeline: int
    last_commit: datetime | None
    seconds: float
    set_aside: str | None


def backup() -> Backup:
    """Take a base backup, verify it, archive the WAL so far, and drop backups beyond ``PAYMENTS_BACKUPS_KEPT``.

    The first one begins the archiving of WAL.

    Raises:
        UsageError: a server is given, the primary does not run, or the backup or the archiving fails.
    """
    primary = nodes.embedded()
    with processes.exclusively(primary.lock_file):
        replica.require_running(primary)
        had_archive = primary.archive.exists()
        try:
            with connect(autocommit=True, dbname="postgres") as connection:
                replica.ensure_replicator(connection, primary)
                _begin_archiving(connection, primary)
                taken = _take(primary)
                archive_now(connection, primary)
        except UsageError:
            if not had_archive:  # without a backup the archive would only grow
                _end_archiving(primary)
            raise
        _drop_old(primary)
        return taken


def backups(primary: Cluster) -> list[Backup]:
    """Return the finished backups, oldest first."""
    found = [_read(path) for path in primary.backups.glob(f"*/{_DESCRIPTION}") if path.parent.suffix != PARTIAL]
    return sorted(found, key=lambda known: known.ended_at)


def restore(to: datetime | None = None) -> Restored:
    """Put the store back to a moment: what was committed until then and nothing else; a standby is dropped.

    Args:
        to: a moment with its time zone, not in the future; None for everything that the archive and what is left of
            the data folder hold.

    Raises:
        UsageError: a server is given, no backup reaches that moment, or a backup is damaged.
    """
    primary = nodes.embedded()
    with processes.exclusively(primary.lock_file):
        began = time.monotonic()
        moment = None if to is None else _checked(to)
        roles = read_roles(primary.folder)
        timeline = (None if moment is None else roles.timeline_at(moment)) or wal.timeline_of(primary)
        chosen = _choose(primary, moment, timeline)
        _verify(primary, chosen)
        restored = primary.named(next_name(primary.folder) + PARTIAL)
        _copy(primary, chosen, restored)
        was_running = primary.postmaster() is not None
        left_timeline = wal.timeline_of(primary)
        primary.stop()
        primary.end_orphans()
        left = Abandoned(left_timeline, datetime.now(UTC))
        wal.archive_rest(primary)
        try:
            last_commit = _recover(primary, restored, moment, timeline)
        except UsageError:
            nodes.discard(restored)
            if was_running:
                nodes.start(primary)
            raise
        replica.detach(primary)
        name = restored.name.removesuffix(PARTIAL)
        restored.log.unlink(missing_ok=True)
        rename_durably(restored.data, primary.named(name).data)
        roles = replace(read_roles(primary.folder), abandoned=(*roles.abandoned, left))
        current = nodes.become_primary(primary, name, roles)
        nodes.start_primary(current)
        seconds = time.monotonic() - began
        nodes.clear_away(current)
        set_aside = str(primary.data) if primary.data.exists() else None
        return Restored(chosen, wal.timeline_of(current), last_commit, seconds, set_aside)


def archive_now(connection: Connection, primary: Cluster) -> None:
    """Close the WAL segment at hand and wait until it is in the archive, which must have begun.

    Raises:
        UsageError: it does not arrive.
    """
    segment = _close_segment(connection)
    if not processes.wait_until((primary.archive / segment).exists, _ARCHIVE_SECONDS):
        raise _stuck(primary)


def _close_segment(connection: Connection) -> str:
    row = connection.execute("select pg_walfile_name(pg_switch_wal() - 1)").fetchone()
    assert row is not None  # noqa: S101 (a select without a table)
    return str(row[0])


def _begin_archiving(connection: Connection, primary: Cluster) -> None:
    """Let the server archive, and see that it does before a backup relies on it."""
    for folder in (primary.backups, primary.archive):
        folder.mkdir(exist_ok=True)
        primary.user.own(folder)
    primary.reconfigure(nodes.primary_configuration(primary))
    deadline = time.monotonic() + _ARCHIVE_SECONDS
    while time.monotonic() < deadline:
        # A segment without a record is never closed; one closed before the archiver read its new command is let go.
        connection.execute("select pg_logical_emit_message(true, 'payments', 'a backup begins')")
        segment = _close_segment(connection)
        if processes.wait_until((primary.archive / segment).exists, _RETRY_SECONDS):
            return
    raise _stuck(primary)


def _stuck(primary: Cluster) -> UsageError:
    return UsageError(f"WAL does not get into {primary.archive}: see {primary.log}.")


def _end_archiving(primary: Cluster) -> None:
    for folder in (primary.backups, primary.archive):
        shutil.rmtree(folder, ignore_errors=True)
    primary.reconfigure(nodes.primary_configuration(primary))


def _take(primary: Cluster) -> Backup:
    started_at = datetime.now(UTC)
    label = started_at.strftime("%Y%m%dT%H%M%S.%fZ")
    aside = primary.backups / f"{label}{PARTIAL}"
    for left in primary.backups.glob(f"*{PARTIAL}"):
        shutil.rmtree(left)
    aside.mkdir()
    primary.user.own(aside)
    taken = primary.run(
        "pg_basebackup",
        *("-D", str(aside / "data"), "-d", nodes.conninfo(primary, application_name="backup"), "-l", label),
        *("--no-password", "--checkpoint=fast", "--wal-method=stream"),
    )
    if taken.returncode != 0:
        raise UsageError(f"The backup could not be taken: {last_line(taken.stdout)}")
    manifest = json.loads((aside / "data" / "backup_manifest").read_text(encoding="utf-8"))
    wal_range = manifest["WAL-Ranges"][0]
    found = Backup(
        label=label,
        timeline=wal_range["Timeline"],
        start_lsn=wal_range["Start-LSN"],
        end_lsn=wal_range["End-LSN"],
        started_at=started_at,
        ended_at=datetime.now(UTC),
        size_bytes=folder_bytes(aside),
    )
    _verify_folder(primary, aside / "data", label)
    write_durably(aside / _DESCRIPTION, json.dumps(asdict(found), default=datetime.isoformat, indent=2) + "\n")
    rename_durably(aside, primary.backups / label)
    return found


def _read(path: Path) -> Backup:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        moments = {name: datetime.fromisoformat(stored[name]) for name in ("started_at", "ended_at")}
        return Backup(**(stored | moments))
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"The backup {path.parent} is damaged ({path.name} cannot be read): delete it.") from None


def _drop_old(primary: Cluster) -> None:
    known = backups(primary)
    dropped, kept = known[: -settings().backups_kept], known[-settings().backups_kept :]
    for old in dropped:
        shutil.rmtree(primary.backups / old.label)
    wal.remove_before(primary.archive, min(wal.place_of(one.start_lsn) for one in kept))


def _checked(to: datetime) -> datetime:
    if to.tzinfo is None:
        raise UsageError(f"The moment {to.isoformat()} has no time zone: end it with Z or an offset such as +02:00.")
    moment = to.astimezone(UTC)
    if moment > datetime.now(UTC):
        raise UsageError(f"The moment {moment.isoformat()} is in the future: name one that has passed.")
    return moment


def _choose(primary: Cluster, moment: datetime | None, timeline: int) -> Backup:
    """Return the last backup before a moment that lies on the way to a timeline."""
    known = backups(primary)
    if not known:
        raise UsageError("There is no backup: make one with payments backup before it is needed.")
    parents = wal.parents_of(primary, timeline)
    usable = [
        one
        for one in known
        if one.timeline == timeline
        or (one.timeline in parents and wal.lsn_number(one.end_lsn) <= parents[one.timeline])
    ]
    if not usable:
        raise UsageError(f"No backup leads to timeline {timeline}: restore to a moment before the last restore.")
    reaching = [one for one in usable if moment is None or one.ended_at <= moment]
    if not reaching:
        raise UsageError(f"The earliest moment that can be restored is {usable[0].ended_at.isoformat()}.")
    return reaching[-1]


def _verify(primary: Cluster, chosen: Backup) -> None:
    _verify_folder(primary, primary.backups / chosen.label / "data", chosen.label)


def _verify_folder(primary: Cluster, folder: Path, label: str) -> None:
    verified = primary.run("pg_verifybackup", "--exit-on-error", "--quiet", str(folder))
    if verified.returncode != 0:
        raise UsageError(
            f"The backup {label} is damaged ({last_line(verified.stdout)}): "
            f"delete {folder.parent} to restore from the one before it."
        )


def _copy(primary: Cluster, chosen: Backup, restored: Cluster) -> None:
    restored.data.mkdir()
    restored.user.own(restored.data)
    source = primary.backups / chosen.label / "data"
    copied = primary.user.run(["cp", "-R", "-p", f"{source}/.", str(restored.data)], cwd=primary.backups)
    if copied.returncode != 0:
        nodes.discard(restored)
        raise UsageError(f"The backup {chosen.label} could not be copied: {last_line(copied.stdout)}")


def _recover(primary: Cluster, restored: Cluster, moment: datetime | None, timeline: int) -> datetime | None:
    """Let a copied backup replay the archive up to a moment, on a port that nobody knows; return its last commit."""
    write_private(restored.data / "recovery.signal", "", restored.user)
    configuration = [
        "archive_mode = off",  # what it writes now is not history yet
        setting("restore_command", nodes.restore_command(primary)),
        setting("recovery_target_timeline", str(timeline)),
        setting("recovery_target_action", "promote"),
    ]
    target = [] if moment is None else [setting("recovery_target_time", moment.isoformat(" "))]
    port = processes.free_port()
    is_target_reached = moment is not None
    try:
        restored.start(port, [*configuration, *target])
        last_commit = _await_end_of_recovery(restored, port)
    except UsageError:
        if _TARGET_BEYOND_END not in _printed(restored):
            raise
        # Nothing was committed after that moment: all there is was before it.
        is_target_reached = False
        restored.start(port, configuration)
        last_commit = _await_end_of_recovery(restored, port)
    restored.stop()
    if not is_target_reached:
        _require_end_of_archive(primary, restored, timeline, last_commit)
    history = f"{wal.timeline_of(restored):08X}.history"
    wal.copy_durably(primary, restored.data / "pg_wal" / history, primary.archive / history)
    return last_commit


def _require_end_of_archive(primary: Cluster, restored: Cluster, timeline: int, last_commit: datetime | None) -> None:
    """Raise a UsageError when a recovery that should have taken all WAL ended at a gap before the last of it."""
    reached = wal.parents_of(restored, wal.timeline_of(restored))[timeline]
    newest = wal.newest_archived(primary.archive, timeline)
    if newest is not None and reached < newest:
        until = "the backup itself" if last_commit is None else last_commit.isoformat()
        raise UsageError(
            f"WAL is missing or damaged in {primary.archive}: the store can be restored to {until} at the latest."
        )


def _await_end_of_recovery(restored: Cluster, port: int) -> datetime | None:
    """Wait as long as it takes, while the server lives, until it takes writes; return the last commit it replayed."""
    while restored.postmaster() is not None:
        with contextlib.suppress(UsageError), connect(autocommit=True, dbname="postgres", port=port) as connection:
            row = connection.execute("select not pg_is_in_recovery(), pg_last_xact_replay_timestamp()").fetchone()
            if row is not None and row[0]:
                return row[1] if isinstance(row[1], datetime) else None
        time.sleep(_POLL_SECONDS)
    reasons = [line for line in _printed(restored).splitlines() if "FATAL" in line or "PANIC" in line]
    raise UsageError(f"The backup does not recover: {(reasons or ['its server ended'])[-1]}")


def _printed(restored: Cluster) -> str:
    return restored.log.read_text(encoding="utf-8", errors="replace") if restored.log.exists() else ""
