"""The snapshot that a stream begins with: table by table, large ones in ranges of their leading key, each a batch.

A batch says in its commit record what it holds; a snapshot that was interrupted goes on behind the last one. It reads
several tables at once, all of them from one exported state of the server. After an interruption that state is gone and
the rest is read from a later one: the log, which is read from before the first of them, brings both to the same end.
The rows of a batch stand at the place of the log at which their state was exported, so that older changes, which are
read after them, do not outrank them. That place is exact where the server makes a slot for it (see ``one_state``).
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql

from ingestion.contracts import Entity, entities
from ingestion.landing import LandingReport, Staged, landing
from ingestion.oltp import (
    SOURCE,
    State,
    Table,
    begin_snapshot,
    copy_table,
    csv_of,
    note_columns,
    one_state,
    repeatable_read,
    require_all_rows,
    stage_csv,
    stopped_tables,
    table_now,
    table_of,
)
from ingestion.raw_zone import Commit, Pin, Position, RawZone, emptied
from payments.settings import settings
from payments.systems.oltp.connection import connect

RANGE_BYTES = 64 * 1024 * 1024
"""How much of a table a batch takes, as it is in the server; small tables share a batch."""
WORKERS = 3


@dataclass(frozen=True)
class Range:
    """The rows of an entity whose leading key is above ``above`` and not above ``up_to``; None is no bound."""

    entity: str
    above: str | None = None
    up_to: str | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing of the entity comes after it."""
        return self.up_to is None


def unfinished(pin: Pin, generation: str, again: Sequence[str]) -> list[Range]:
    """Return what the snapshot of a generation lacks: whole entities, or the rest of one.

    ``again`` names entities that are read anew although their snapshot was complete.
    """
    last: dict[str, Range] = {}
    for commit in pin.batches(SOURCE, kind="snapshot"):
        if commit.parameters.get("generation") == generation:
            last |= {landed.entity: landed for landed in _ranges(commit)}
    missing = []
    for name in entities(SOURCE):
        landed = last.get(name)
        if landed is None or (landed.is_last and name in again):
            missing.append(Range(name))
        elif not landed.is_last:
            missing.append(Range(name, above=landed.up_to))
    return missing


def _ranges(commit: Commit) -> list[Range]:
    return [Range(**found) for found in json.loads(commit.parameters.get("ranges", "[]"))]


@dataclass(frozen=True)
class Snapshots:
    """Where snapshots found the rows of an entity that the log, as it is read now, has not reached yet.

    ``places`` are ranges and the positions at which they were read, the newest first. What landed from sequence
    ``since`` on, the log has told without a gap.
    """

    since: int = 0
    places: tuple[tuple[Range, str], ...] = ()

    def place(self, key: Sequence[str | None]) -> str:
        """Return the position at which a snapshot read the place of a key last; empty when none did."""
        leading = key[0] or ""
        for found, position in self.places:
            if (found.above is None or leading > found.above) and (found.up_to is None or leading <= found.up_to):
                return position
        return ""


def snapshots_after(pin: Pin, entity: Entity, position: str) -> Snapshots:
    """Return the snapshots of an entity that stand behind a position of the log; mostly there are none."""
    last = pin.last_of(SOURCE, "columns")
    if last is None or _place(last) <= position:
        return Snapshots()
    places: list[tuple[Range, str]] = []
    for commit in reversed(pin.batches(SOURCE, kind="snapshot")):
        ranges = [found for found in _ranges(commit) if found.entity == entity.name]
        if not ranges and any(part.entity == entity.name for part in commit.entities):
            ranges = [Range(entity.name)]
        places += [(found, _place(commit)) for found in ranges]
        # Before it the log may have a gap: it begins a generation, or takes up a table that had been stopped.
        if "ranges" in commit.parameters and any(found.above is None for found in ranges):
            return Snapshots(commit.sequence, tuple(places))
    return Snapshots(0, tuple(places))


def _place(snapshot: Commit) -> str:
    return str(Position(snapshot.reached.epoch, snapshot.reached.commit_lsn, 0, 0))


def land_snapshot(missing: Sequence[Range]) -> Iterator[LandingReport]:
    """Land ranges of entities, batch by batch, from one state of the server; the caller is the only one that does.

    A table that cannot be read any more is left out and noted as stopped. Raises ``UsageError`` when the store cannot
    be reached or refuses to be read.
    """
    if not missing:
        return
    pin = RawZone(settings().raw_zone).pin()
    with ExitStack() as stack:
        connection = stack.enter_context(connect(autocommit=True))
        tables = {found.entity: table_now(connection, pin, entities(SOURCE)[found.entity]) for found in missing}
        readable = {name: table for name, table in tables.items() if table.view.stopped is None}
        state = stack.enter_context(one_state(connection))
        require_all_rows(connection, readable.values())
        batches = _batches(connection, [found for found in missing if found.entity in readable], readable)
        row = connection.execute("select pg_export_snapshot()").fetchone()
        if row is None:
            raise AssertionError("no row from pg_export_snapshot()")
        folder = emptied(pin.root / "snapshot")
        stack.callback(shutil.rmtree, folder)
        pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
        exports: list[Future[Path]] = []
        for number, batch in enumerate(batches):
            # As many batches ahead as there are workers: the rest would only fill the disk.
            for ahead in range(len(exports), min(len(batches), number + WORKERS)):
                into = folder / str(ahead)
                exports.append(pool.submit(_export, batches[ahead], readable, row[0], into))
            exported = exports[number].result()
            yield _land(batch, readable, exported, state)
    unreadable = {name: table.view.stopped for name, table in tables.items() if name not in readable}
    if unreadable:
        with landing(SOURCE, "snapshot", origin="") as nothing:
            begin_snapshot(nothing, state)
            nothing.parameters["stopped"] = json.dumps(unreadable)
            yield nothing.commit()


def _batches(connection: psycopg.Connection, missing: Sequence[Range], tables: dict[str, Table]) -> list[list[Range]]:
    """Return the ranges by batch: small tables together, large ones in ranges of their own."""
    batches: list[list[Range]] = []
    together, filled = list[Range](), 0
    for found in missing:
        size = _size(connection, tables[found.entity])
        if size > RANGE_BYTES:
            batches += [[part] for part in _split(connection, tables[found.entity], found, size)]
            continue
        if filled + size > RANGE_BYTES and together:
            batches.append(together)
            together, filled = [], 0
        together.append(found)
        filled += size
    return [*batches, together] if together else batches


def _size(connection: psycopg.Connection, table: Table) -> int:
    row = connection.execute(
        """
        select coalesce(sum(pg_table_size(relid)), pg_table_size(to_regclass(%(name)s)))::bigint
        from pg_partition_tree(to_regclass(%(name)s))
        """,
        {"name": ".".join(table_of(table.entity))},
    ).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def _split(connection: psycopg.Connection, table: Table, found: Range, size: int) -> list[Range]:
    """Split a range at values of the leading key, so that each part is about as large as a batch."""
    column = next(column for column in table.entity.columns if column.name == table.entity.key[0])
    if column.type != "text":
        return [found]
    counts = connection.execute(
        sql.SQL('select {key}, count(*) from {table} where {where} group by 1 order by {key} collate "C"').format(
            key=_leading(table), table=sql.Identifier(*table_of(table.entity)), where=_where(table, found)
        )
    ).fetchall()
    rows_a_batch = max(1, sum(int(count) for _, count in counts) * RANGE_BYTES // size)
    parts, taken = [found], 0
    for value, count in counts[:-1]:
        taken += int(count)
        if taken >= rows_a_batch:
            parts[-1:] = [replace(parts[-1], up_to=value), replace(parts[-1], above=value)]
            taken = 0
    return parts


def _leading(table: Table) -> sql.Composable:
    return sql.Identifier(str(table.view.sources[table.entity.key[0]]))


def _where(table: Table, found: Range) -> sql.Composable:
    # In the order of bytes, as the landing writer compares, whatever the order of the database is.
    bounds: list[sql.Composable] = [
        sql.SQL('{} collate "C" {} {}').format(_leading(table), sql.SQL(operator), sql.Literal(bound))
        for operator, bound in ((">", found.above), ("<=", found.up_to))
        if bound is not None
    ]
    return sql.SQL(" and ").join(bounds) if bounds else sql.SQL("true")


def _export(batch: Sequence[Range], tables: dict[str, Table], snapshot: str, folder: Path) -> Path:
    folder.mkdir()
    with connect(autocommit=True) as connection, repeatable_read(connection, snapshot):
        for found in batch:
            table = tables[found.entity]
            copy_table(connection, table, csv_of(folder, table.entity), _where(table, found))
    return folder


def _land(batch: Sequence[Range], tables: dict[str, Table], exported: Path, state: State) -> LandingReport:
    with landing(SOURCE, "snapshot", origin="") as files:
        begin_snapshot(files, state)
        note_columns(files, [tables[found.entity] for found in batch])
        files.parameters["ranges"] = json.dumps([asdict(found) for found in batch])
        # A table that had been stopped goes on.
        done = {found.entity for found in batch if found.is_last}
        still = {name: why for name, why in stopped_tables(files.pin.last_of(SOURCE)).items() if name not in done}
        files.parameters["stopped"] = json.dumps(still)
        for found in batch:
            entity = tables[found.entity].entity
            stage_csv(files, entity, csv_of(exported, entity))
            files.land(Staged(entity, "staged", is_complete=True, above=found.above, up_to=found.up_to))
        return files.commit()
