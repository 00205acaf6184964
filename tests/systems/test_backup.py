"""Backups and restores: exactly what was committed before a moment, again and again, and nothing on a wrong command."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.oltp import backup, replica, server, wal
from payments.systems.oltp.connection import connect
from payments.systems.oltp.postgres import cluster
from tests.systems.stores import kill, note, noted, own_store


@pytest.fixture
def store(reachable_folder: Path) -> Iterator[Path]:
    with own_store(reachable_folder, PAYMENTS_BACKUPS_KEPT="2") as home:
        server.start()
        yield home


def server_now() -> datetime:
    """Return a moment between what was committed and what will be."""
    with connect(autocommit=True) as connection:
        row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    assert isinstance(row[0], datetime)
    return row[0]


def fill_segments(count: int) -> None:
    """Write so much that the archive gets whole segments without being asked."""
    with connect(autocommit=True) as connection:
        for _ in range(count):
            connection.execute("select pg_logical_emit_message(true, 'test', repeat('x', 1000000))")
            connection.execute("select pg_switch_wal()")


def test_a_restore_has_exactly_what_was_committed_and_a_wrong_one_can_be_undone(store: Path) -> None:
    note(1)
    taken = backup.backup()
    assert taken.timeline == 1
    assert taken.size_bytes > 1_000_000
    note(2)
    with connect() as open_transaction:
        open_transaction.execute("insert into noted values (99)")
        after_2 = server_now()
        open_transaction.commit()
    note(3)
    after_3 = server_now()
    note(4)

    first = backup.restore(after_2)
    assert noted() == [1, 2], "99 was written before the moment but committed after it"
    assert first.timeline == 2
    assert first.last_commit is not None
    assert first.last_commit <= after_2
    assert first.set_aside is not None
    assert Path(first.set_aside).exists()

    note(20)
    after_20 = server_now()
    second = backup.restore(after_3)
    assert noted() == [1, 2, 3, 99], "the first restore is undone"
    assert not Path(first.set_aside).exists()
    assert second.set_aside is not None

    backup.restore(after_20)
    assert noted() == [1, 2, 20], "and the second one, too"
    note(21)
    # Nothing was committed between this moment and the next restore.
    backup.restore(server_now())
    assert noted() == [1, 2, 20, 21]
    server.stop()
    server.start()
    assert noted() == [1, 2, 20, 21]


def test_wrong_moments_give_one_line_and_change_nothing(store: Path) -> None:
    with pytest.raises(UsageError, match="no backup"):
        backup.restore()
    note(1)
    early = server_now()
    backup.backup()
    for moment, hint in (
        (early, "earliest moment"),
        (datetime.now(UTC) + timedelta(hours=1), "in the future"),
        (datetime(2026, 1, 1, 12), "no time zone"),  # noqa: DTZ001 (that is the point)
    ):
        with pytest.raises(UsageError, match=hint) as caught:
            backup.restore(moment)
        assert "\n" not in str(caught.value)
    assert noted() == [1]
    assert cluster().name == "data"


def test_a_damaged_backup_is_refused_and_the_store_goes_on(store: Path) -> None:
    note(1)
    backup.backup()
    kept = backup.backup()
    note(2)
    victim = cluster().backups / kept.label / "data" / "global" / "pg_control"
    content = bytearray(victim.read_bytes())
    content[100] ^= 0xFF
    victim.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged") as caught:
        backup.restore()
    assert kept.label in str(caught.value)
    assert "\n" not in str(caught.value)
    note(3)
    assert noted() == [1, 2, 3]
    # What the message advises works.
    shutil.rmtree(cluster().backups / kept.label)
    backup.restore()
    assert noted() == [1, 2, 3]


def test_a_gap_in_the_archive_is_told_and_the_store_comes_back(store: Path) -> None:
    note(1)
    backup.backup()
    fill_segments(3)
    after = server_now()
    note(2)
    archived = sorted(path for path in cluster().archive.iterdir() if len(path.name) == 24)
    archived[-2].write_bytes(bytes(archived[-2].stat().st_size))
    with connect(autocommit=True) as connection:
        connection.execute("checkpoint")
    with pytest.raises(UsageError, match="WAL is missing or damaged") as caught:
        backup.restore()
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="WAL is missing or damaged"):
        backup.restore(after)
    assert noted() == [1, 2]
    assert cluster().name == "data"


def test_a_lost_primary_comes_back_with_its_data_folder_or_with_what_was_archived(store: Path) -> None:
    note(1)
    backup.backup()
    note(2)
    kill(cluster())
    backup.restore()
    assert noted() == [1, 2], "nothing is lost while the data folder is left"
    with connect(autocommit=True) as connection:
        backup.archive_now(connection, cluster())
    note(3)
    lost = cluster()
    kill(lost)
    shutil.rmtree(lost.data)
    with pytest.raises(UsageError, match="run payments restore"):
        server.start()
    restored = backup.restore()
    assert restored.set_aside is None
    assert noted() == [1, 2], "3 was in no archive yet"
    note(4)
    assert noted() == [1, 2, 4]


def test_a_restore_reaches_over_a_failover(store: Path) -> None:
    note(1)
    backup.backup()
    replica.start(synchronous=True)
    note(2)
    fill_segments(2)
    before = server_now()
    note(3)
    kill(cluster())
    replica.failover()
    note(4)
    fill_segments(2)
    after = server_now()
    note(5)
    backup.restore(after)
    assert noted() == [1, 2, 3, 4]
    backup.restore(before)
    assert noted() == [1, 2]
    assert replica.status() is None


def test_wal_is_archived_from_the_first_backup_on_and_dropped_with_the_last(store: Path) -> None:
    fill_segments(3)
    embedded = cluster()
    assert not embedded.archive.exists()
    waiting = embedded.data / "pg_wal" / "archive_status"
    assert processes.wait_until(lambda: not list(waiting.glob("*.ready")), 10), "WAL must not pile up"
    note(1)
    labels = []
    for number in range(2, 5):
        labels.append(backup.backup().label)
        note(number)
        fill_segments(2)
    kept = backup.backups(embedded)
    assert [known.label for known in kept] == labels[-2:]
    segments = [path.name for path in embedded.archive.iterdir() if len(path.name) == 24]
    oldest_needed = f"{1:08X}{wal.place_of(kept[0].start_lsn)}"
    assert min(segments) == oldest_needed
    backup.restore(kept[0].ended_at)
    assert noted() == [1, 2]


def test_the_archive_never_replaces_a_file_by_another(store: Path) -> None:
    backup.backup()
    embedded = cluster()
    with connect(autocommit=True) as connection:
        row = connection.execute("select pg_walfile_name(pg_current_wal_lsn())").fetchone()
        assert row is not None
        taken = embedded.archive / row[0]
        taken.write_bytes(b"another server's")
        connection.execute("select pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()")

        def failed() -> bool:
            counted = connection.execute("select failed_count from pg_stat_archiver").fetchone()
            return counted is not None and counted[0] > 0

        assert processes.wait_until(failed, 20)
    assert taken.read_bytes() == b"another server's"
    assert any("archiving of WAL fails" in line for line in server.status().missing)


def test_backup_and_restore_need_the_embedded_server(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stop()
    with pytest.raises(UsageError, match="does not run"):
        backup.backup()
    assert not cluster().archive.exists()
    monkeypatch.setenv("PAYMENTS_OLTP_DSN", "postgresql://127.0.0.1:1/elsewhere")
    settings.cache_clear()
    for command in (backup.backup, backup.restore, replica.start, replica.stop, replica.status, replica.failover):
        with pytest.raises(UsageError, match="operator"):
            command()
    monkeypatch.undo()
    settings.cache_clear()


def test_a_backup_is_one_that_postgresql_itself_accepts(store: Path) -> None:
    taken = backup.backup()
    embedded = cluster()
    shown = embedded.run("pg_controldata", str(embedded.backups / taken.label / "data"))
    assert isinstance(shown, subprocess.CompletedProcess)
    assert "in production" in shown.stdout
    assert embedded.run("pg_verifybackup", str(embedded.backups / taken.label / "data")).returncode == 0
