"""The monthly partitions of the operational store: made ahead, watched, and put away in files when they are old.

The default partition of a table only catches rows that came before their month was made; making the month moves them.
"""

import csv
import gzip
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from psycopg import Connection, errors, sql
from psycopg.types.json import Jsonb

from payments.errors import UsageError
from payments.systems.oltp.connection import connect

# Ledger entries are not among them: the checker proves every balance from all of them.
RETIRED_TABLES = ("ops.outbox", "ops.audit_log")
_MONTH = re.compile(r"(\d{4})-(\d{2})")


@dataclass(frozen=True)
class Partition:
    """One partition: its table, its month (none for the default one), rows as last estimated, bytes with indexes."""

    table: str
    name: str
    month: date | None
    estimated_rows: int
    size_bytes: int


@dataclass(frozen=True)
class Retired:
    """A month that was put away: its partition is gone, its rows stand in the file."""

    table: str
    month: date
    rows: int
    file: Path
    sha256: str


def month_of(text: str) -> date:
    """Return the first day of a month written as YYYY-MM.

    Raises:
        UsageError: it is no month.
    """
    match = _MONTH.fullmatch(text)
    if match is None or not (1 <= int(match[2]) <= 12 and int(match[1]) >= 1):
        raise UsageError(f"A month is written as YYYY-MM, but it is {text!r}.")
    return date(int(match[1]), int(match[2]), 1)


def later(month: date, months: int) -> date:
    """Return the month that lies some months later (or earlier, below zero)."""
    years, index = divmod(month.month - 1 + months, 12)
    return date(month.year + years, index + 1, 1)


def create_months(ahead: int = 2) -> list[str]:
    """Make the partitions of the current month, of those ahead, and of every month that has stray rows.

    Returns:
        The partitions that were missing.

    Raises:
        UsageError: the tables are in use for too long; nothing was made.
    """
    with connect() as connection, _briefly_locked(connection):
        current = _current_month(connection)
        made = _ensure(connection, current, later(current, ahead))
        for month in _stray_months(connection):
            made += _ensure(connection, month, month)
        return made


def partitions() -> list[Partition]:
    """Return every partition of the monthly tables, in order."""
    with connect() as connection:
        rows = connection.execute(
            """
            select
                m.table_name,
                format('%I.%I', n.nspname, c.relname),
                to_date(substring(c.relname from '_(\\d{4}_\\d{2})$'), 'YYYY_MM'),
                greatest(c.reltuples, 0)::bigint,
                pg_total_relation_size(c.oid)
            from ops.monthly_tables as m
            inner join pg_inherits as i on i.inhparent = m.table_name::regclass
            inner join pg_class as c on i.inhrelid = c.oid
            inner join pg_namespace as n on c.relnamespace = n.oid
            order by 1, 3 nulls last
            """
        )
        return [Partition(*row) for row in rows]


def stray_rows() -> dict[str, int]:
    """Return how many rows stand in the default partition of each monthly table; every count should be zero."""
    with connect() as connection:
        return dict(connection.execute("select table_name, row_count from ops.stray_rows()").fetchall())


def retire(before: date, folder: Path, tables: Sequence[str] = RETIRED_TABLES) -> list[Retired]:
    """Put the months of tables (the outbox, the audit trail) before a month into files, then drop their partitions.

    Each month is a transaction of its own: copied (writers wait, readers do not), written aside, synced, renamed, read
    back and counted, and only then dropped, with a line in the audit trail. Killed anywhere, a month is in the
    database, in a finished file, or both; the same command again completes it.

    Args:
        before: the first month that stays; at most the current one.
        folder: where the files go; made if missing. Each is gzip CSV with a header, and a SHA-256 beside it.
        tables: which of RETIRED_TABLES.

    Raises:
        UsageError: a table is not retired, the months have not ended, rows stand in a default partition, or a file does
            not read back.
    """
    for table in tables:
        if table == "ledger.entries":
            raise UsageError("Ledger entries are never retired: payments check proves every balance from all of them.")
        if table not in RETIRED_TABLES:
            raise UsageError(f"{table} is not retired by month: {' and '.join(RETIRED_TABLES)} are.")
    with connect(autocommit=True) as connection:
        if before > _current_month(connection):
            raise UsageError(f"{before:%Y-%m} lies ahead: only months that have ended can be retired.")
        strays = {table for table, count in stray_rows().items() if count}.intersection(tables)
        if strays:
            names = ", ".join(sorted(strays))
            raise UsageError(f"Rows stand outside their month in {names}: run payments partitions create.")
        folder.mkdir(parents=True, exist_ok=True)
        return [
            _retire_month(connection, partition, partition.month, folder)
            for partition in partitions()
            if partition.table in tables and partition.month is not None and partition.month < before
        ]


def _retire_month(connection: Connection, partition: Partition, month: date, folder: Path) -> Retired:
    relation = sql.Identifier(*partition.name.split("."))
    with connection.transaction(), _briefly_locked(connection):
        connection.execute(sql.SQL("lock table {} in exclusive mode").format(relation))
        aside = folder / f"{partition.name}.csv.gz.part"
        rows = _write(connection, relation, aside)
        file = _put_in_place(aside, folder, partition.name)
        if _count_rows(file) != rows:
            raise UsageError(f"{file} does not hold the {rows} rows of {partition.name}: nothing was dropped.")
        digest = _sha256(file)
        connection.execute(sql.SQL("drop table {}").format(relation))
        connection.execute(
            "call ops.record(null, %s, 'retire', %s, %s)",
            (
                partition.table,
                f"{month:%Y-%m}",
                Jsonb({"rows": rows, "file": file.name, "sha256": digest}),
            ),
        )
    return Retired(partition.table, month, rows, file, digest)


def _write(connection: Connection, relation: sql.Identifier, path: Path) -> int:
    """Copy a partition into a gzip file, synced, in the order of its key, and return how many rows it has."""
    query = sql.SQL("select * from {} order by 1, 2, 3").format(relation)
    with path.open("wb") as raw:
        path.chmod(0o600)
        # No name and no time within: equal rows make equal files.
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed, connection.cursor() as cursor:
            with cursor.copy(sql.SQL("copy ({}) to stdout (format csv, header)").format(query)) as copy:
                for chunk in copy:
                    packed.write(chunk)
            rows = cursor.rowcount
        raw.flush()
        os.fsync(raw.fileno())
    return rows


def _put_in_place(aside: Path, folder: Path, name: str) -> Path:
    """Rename a written file to the name of its partition and write its digest beside it; never over other content.

    A file that a killed run left is the same file when its content is; otherwise the month came back with other rows,
    and its file gets a number.
    """
    digest = _sha256(aside)
    number = 1
    file = folder / f"{name}.csv.gz"
    while file.exists() and _sha256(file) != digest:
        number += 1
        file = folder / f"{name}.{number}.csv.gz"
    aside.rename(file)
    beside = file.with_name(file.name + ".sha256")
    written = beside.with_name(beside.name + ".part")
    with written.open("w", encoding="utf-8") as text:
        text.write(f"{digest}  {file.name}\n")
        text.flush()
        os.fsync(text.fileno())
    written.rename(beside)
    _sync_folder(folder)
    return file


def _count_rows(file: Path) -> int:
    """Return how many rows a file has below its header; texts may hold line ends, so a reader of CSV counts."""
    csv.field_size_limit(sys.maxsize)
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        return sum(1 for _ in csv.reader(lines)) - 1


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _current_month(connection: Connection) -> date:
    [(now,)] = connection.execute("select now()").fetchall()
    return date(now.year, now.month, 1)


def _ensure(connection: Connection, first: date, last: date) -> list[str]:
    return [name for (name,) in connection.execute("select ops.ensure_months(%s, %s)", (first, last))]


def _stray_months(connection: Connection) -> list[date]:
    return [month for (month,) in connection.execute("select distinct m from ops.stray_months() as m order by m")]


@contextmanager
def _briefly_locked(connection: Connection) -> Iterator[None]:
    """Give up when the locks of the body take longer than ten seconds: all traffic queues behind them."""
    connection.execute("set local lock_timeout = '10s'")
    try:
        yield
    except errors.LockNotAvailable:
        raise UsageError("The tables are in use by a long transaction: try again when it has ended.") from None
