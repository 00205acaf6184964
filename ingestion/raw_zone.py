"""The raw zone on disk: Parquet files and the commit records that make them visible.

A batch writes its files aside (``tmp/``), syncs them, renames them into place, and renames its commit record last. A
file that no commit record names does not exist for a reader: a batch is visible as a whole or not at all, and the next
batch removes what a killed one left behind. Readers pin the last committed sequence and name exactly the files of the
batches up to it.

Layout below the root::

    commits/000000000012.json
    checkpoints/000000000012.json                                    what stands for all commit records up to there
    data/<source>/<entity>/000000000012-000000000001.parquet         highest-lowest landing sequence
    data/platform/batches/000000000012-000000000001.parquet          the batches whose records a checkpoint replaced
    quarantine/<source>/<entity>/000000000012-000000000012.parquet   what was refused
    resolved/<source>/<entity>/000000000012-000000000012.parquet     ids of quarantined records that are settled
    pin-<warehouse>.json                                             when a warehouse bound its views to files

A checkpoint (:mod:`ingestion.compaction` makes it) is what a reader needs to know of all batches up to one: so a reader
reads one checkpoint and the few records after it, however many batches ever landed. Files that a checkpoint no longer
names stay for :data:`GRACE`: a pin is good for so long.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from ingestion.contracts import ENVELOPE, Entity
from payments.errors import UsageError

FOLDERS = ("data", "quarantine", "resolved")
BATCHES = "data/platform/batches"
GRACE = timedelta(minutes=15)
"""How long a file stays after another one replaced it: the time that a reader has with its pin."""
_ATTEMPTS = 20


@dataclass(frozen=True, order=True)
class Position:
    """Where a change stands in the log of its source: all changes of a source are in this order, also after a replay.

    The epoch grows when the source is another one, or went back in its log. A change that a log of transactions tells
    stands where its transaction committed, then at its own place; ``n`` counts the changes that share a place, as the
    rows of one COPY do. The place alone would not do: a transaction may write first and commit last.
    """

    epoch: int
    commit_lsn: int
    change_lsn: int
    n: int

    def __str__(self) -> str:
        """Return the position as the envelope writes it: the order of the texts is that of the positions."""
        return f"{self.prefix}{self.n:08x}"

    @property
    def prefix(self) -> str:
        """The text up to ``n``."""
        return f"{self.epoch:08x}/{self.commit_lsn:016x}/{self.change_lsn:016x}/"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return the position that a text stands for. Raises ValueError when it stands for none."""
        epoch, commit_lsn, change_lsn, n = (int(part, 16) for part in text.split("/"))
        return cls(epoch, commit_lsn, change_lsn, n)


class EntityCommit(BaseModel):
    """What a batch did to one entity; ``read = accepted + unchanged + quarantined``, deletions are counted apart."""

    model_config = ConfigDict(frozen=True)

    entity: str
    schema_version: int
    read: int
    accepted: int
    unchanged: int
    quarantined: int
    deleted: int
    files: list[str] = Field(default_factory=list)
    quarantine_files: list[str] = Field(default_factory=list)
    resolved_files: list[str] = Field(default_factory=list)


class Commit(BaseModel):
    """The commit record of a batch: ``source_at`` is when the source was read, ``position`` what the batch reaches."""

    model_config = ConfigDict(frozen=True)

    sequence: int
    batch_id: str
    source: str
    kind: str
    origin: str
    position: str
    source_at: datetime
    landed_at: datetime
    code_version: str
    entities: list[EntityCommit]
    parameters: dict[str, str] = Field(default_factory=dict)

    @property
    def reached(self) -> Position:
        """The position that the batch reaches."""
        return Position.parse(self.position)


def sequences_of(name: str) -> tuple[int, int]:
    """Return the highest and the lowest landing sequence of the rows of a file, as its name or path tells them."""
    file = name.rsplit("/", 1)[-1]
    return int(file[:12]), int(file[13:25])


class File(BaseModel):
    """A Parquet file: its name below the root, its bytes, and whether it may hold a key more than once."""

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    born_at: datetime
    repeats_keys: bool

    @property
    def highest(self) -> int:
        """The highest landing sequence of its rows."""
        return sequences_of(self.name)[0]

    @property
    def lowest(self) -> int:
        """The lowest landing sequence of its rows."""
        return sequences_of(self.name)[1]


class Replaced(BaseModel):
    """A file that another one replaced; one with rows of an erased person is no reader's any more."""

    model_config = ConfigDict(frozen=True)

    name: str
    born_at: datetime
    replaced_at: datetime
    is_erased: bool = False


class Checkpoint(BaseModel):
    """The raw zone up to one sequence: files by folder (``data/oltp/charges``), oldest first, and what was replaced.

    ``told``: of each source the last commit, and of each of its parameters the last commit that told it.
    ``rewritten``: the sequence of the last erasure: rows that landed before it may be others since; 0 is none.
    """

    model_config = ConfigDict(frozen=True)

    sequence: int
    made_at: datetime
    files: dict[str, list[File]]
    told: list[Commit]
    replaced: list[Replaced] = Field(default_factory=list)
    rewritten: int = 0


NOTHING = Checkpoint(sequence=0, made_at=datetime.fromtimestamp(0, UTC), files={}, told=[])


@dataclass(frozen=True)
class Pin:
    """The raw zone as it stood at one committed sequence; later batches do not change it.

    ``commits`` are those after the checkpoint, oldest first; :meth:`batches` finds all.
    """

    root: Path
    commits: tuple[Commit, ...]
    checkpoint: Checkpoint = NOTHING

    @property
    def sequence(self) -> int:
        """The last committed sequence; 0 when nothing has landed."""
        return self.commits[-1].sequence if self.commits else self.checkpoint.sequence

    def last_of(self, source: str, parameter: str | None = None) -> Commit | None:
        """Return the newest commit of a source, or the newest that has a parameter."""
        known = (*self.checkpoint.told, *self.commits)
        return next(
            (
                commit
                for commit in reversed(known)
                if commit.source == source and (parameter is None or parameter in commit.parameters)
            ),
            None,
        )

    def files(self, source: str, entity: str, folder: str = "data", after: int = 0) -> list[Path]:
        """Return the committed files of an entity that hold rows newer than sequence ``after``, oldest first.

        A file of several batches may hold older rows as well: who asks for ``after`` leaves them out.
        """
        field = {"data": "files", "quarantine": "quarantine_files", "resolved": "resolved_files"}[folder]
        merged = self.checkpoint.files.get(f"{folder}/{source}/{entity}", [])
        return [
            *(self.root / file.name for file in merged if file.highest > after),
            *(
                self.root / name
                for commit in self.commits
                if commit.source == source and commit.sequence > after
                for part in commit.entities
                if part.entity == entity
                for name in getattr(part, field)
            ),
        ]

    def repeats_keys(self, source: str, entity: str) -> bool:
        """Say whether one file of an entity may hold a key more than once, as those of a log and merged ones do."""
        merged = self.checkpoint.files.get(f"data/{source}/{entity}", [])
        return any(file.repeats_keys for file in merged) or any(
            part.entity == entity
            for commit in self.commits
            if commit.source == source and commit.kind == "log"
            for part in commit.entities
        )

    def batches(self, source: str, *, kind: str | None = None, batch_id: str | None = None) -> list[Commit]:
        """Return every batch of a source that touched an entity, oldest first; older ones without the names of files.

        Unlike :meth:`last_of` this reads what was merged: it costs more the more batches there are.
        """
        wanted = {"source": source, "kind": kind, "batch_id": batch_id}
        given = {name: value for name, value in wanted.items() if value is not None}
        return [
            *self._merged_batches(given),
            *(
                commit
                for commit in self.commits
                if commit.entities and all(getattr(commit, name) == value for name, value in given.items())
            ),
        ]

    def _merged_batches(self, given: dict[str, str]) -> Iterator[Commit]:
        files = [self.root / file.name for file in self.checkpoint.files.get(BATCHES, [])]
        if not files:
            return
        found: dict[int, Commit] = {}
        names = ", ".join(_BATCH_COLUMNS)
        with duckdb.connect() as con:
            con.execute("set TimeZone = 'UTC'")
            condition = " and ".join(f"{name} = ${name}" for name in given)
            query = f"select {names} from {parquet(files)} where {condition} order by sequence"
            for row in con.execute(query, given).fetchall():
                cells = dict(zip(_BATCH_COLUMNS, row, strict=True))
                part = EntityCommit(**{name.removesuffix("_count"): cells[name] for name in _PART_COLUMNS})
                commit = found.get(cells["sequence"])
                if commit is None:
                    head = {name: cells[name] for name in _HEAD_COLUMNS} | {
                        "parameters": json.loads(cells["parameters"])
                    }
                    found[cells["sequence"]] = Commit(**head, entities=[part])
                else:
                    commit.entities.append(part)
        yield from found.values()


_HEAD_COLUMNS = (
    "batch_id",
    "sequence",
    "source",
    "kind",
    "origin",
    "position",
    "source_at",
    "landed_at",
    "code_version",
)
_PART_COLUMNS = (
    "entity",
    "schema_version",
    "read_count",
    "accepted_count",
    "unchanged_count",
    "quarantined_count",
    "deleted_count",
)
_BATCH_COLUMNS = (*_HEAD_COLUMNS, *_PART_COLUMNS, "parameters")


def batch_table(commits: Iterable[Commit]) -> pa.Table:
    """Return the rows of ``platform.batches`` that commits stand for, one an entity, with their parameters as JSON."""
    rows = [
        {name: getattr(commit, name) for name in _HEAD_COLUMNS}
        | {name: getattr(part, name.removesuffix("_count")) for name in _PART_COLUMNS}
        | {"parameters": json.dumps(commit.parameters)}
        for commit in commits
        for part in commit.entities
    ]
    return pa.Table.from_pylist(rows, pa.schema([(name, _batch_type(name)) for name in _BATCH_COLUMNS]))


def _batch_type(name: str) -> pa.DataType:
    if name == "sequence" or name.endswith("_count"):
        return pa.int64()
    if name == "schema_version":
        return pa.int32()
    return pa.timestamp("us", "UTC") if name.endswith("_at") else pa.string()


class RawZone:
    """A raw zone below a folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def pin(self) -> Pin:
        """Return the raw zone as it stands now.

        Raises:
            UsageError: a commit record is missing.
        """
        for attempt in range(_ATTEMPTS):
            # A folder is not listed in one moment: a record may be missed, or go while a checkpoint replaces it.
            time.sleep(0.01 * attempt)
            try:
                checkpoint = self._checkpoint()
                commits = self._commits_after(checkpoint.sequence)
            except FileNotFoundError:
                continue
            if [commit.sequence for commit in commits] == [
                checkpoint.sequence + place for place in range(1, len(commits) + 1)
            ]:
                return Pin(self.root, tuple(commits), checkpoint)
        raise UsageError(f"A commit record of the raw zone {self.root} is missing: restore it from your backup.")

    def _checkpoint(self) -> Checkpoint:
        names = [name for name in listed(self.root / "checkpoints") if name.endswith(".json")]
        return _read(self.root / "checkpoints" / max(names), Checkpoint) if names else NOTHING

    def _commits_after(self, sequence: int) -> list[Commit]:
        first = f"{sequence + 1:012d}"
        folder = self.root / "commits"
        found = sorted(name for name in listed(folder) if name.endswith(".json") and name >= first)
        return [_read(folder / name, Commit) for name in found]

    @contextmanager
    def writing(self) -> Iterator["BatchFiles"]:
        """Yield the files of the next batch to the only writer; another landing waits here until this one ends.

        What a killed landing left behind is removed first.
        """
        with self.alone("landing.lock"):
            pin = self.pin()
            _remove_leftovers(pin)
            batch = BatchFiles(pin)
            try:
                yield batch
            finally:
                shutil.rmtree(batch.aside, ignore_errors=True)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a lock of the raw zone; the kernel gives it back however the process ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / name).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def emptied(folder: Path) -> Path:
    """Return a folder beside those of the rows, without what a killed run left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class BatchFiles:
    """The files of one batch while it is being written: aside first, in place at :meth:`publish`."""

    def __init__(self, pin: Pin) -> None:
        self.pin = pin
        self.sequence = pin.sequence + 1
        self.aside = pin.root / "tmp" / f"{self.sequence:012d}"
        self.aside.mkdir(parents=True)
        self._names: list[str] = []

    def new(self, folder: str, source: str, entity: str) -> tuple[Path, str]:
        """Return where to write a Parquet file now, and the name it gets in the commit record."""
        name = f"{folder}/{source}/{entity}/{self.sequence:012d}-{self.sequence:012d}.parquet"
        path = self.aside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._names.append(name)
        return path, name

    def publish(self, commit: Commit) -> None:
        """Make the batch durable and visible: data first, the commit record last."""
        move_files(self.aside, self.pin.root, self._names)
        move_record(self.aside, self.pin.root, f"commits/{commit.sequence:012d}.json", commit)


def move_files(aside: Path, root: Path, names: Iterable[str]) -> None:
    """Make files that were written aside durable, and put them in their places below the root."""
    moved = list(names)
    for name in moved:
        _sync(aside / name)
    for name in moved:
        _make_folder((root / name).parent, root)
        (aside / name).rename(root / name)
    for parent in {(root / name).parent for name in moved}:
        _sync(parent)


def move_record(aside: Path, root: Path, name: str, record: BaseModel) -> None:
    """Write a record aside and rename it to its name below the root: it is there as a whole, or not at all."""
    written = aside / "record.json"
    written.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    _sync(written)
    _make_folder((root / name).parent, root)
    written.rename(root / name)
    _sync((root / name).parent)


def relation(con: duckdb.DuckDBPyConnection, entity: Entity, files: Sequence[Path]) -> str:
    """Return SQL that reads an entity's files, or none: the columns of its contract and the envelope.

    A column that none of the files has is null: the contract gained it since, or an erasure left keys alone.
    """
    have = {row[0] for row in con.execute(f"describe from {parquet(files)}").fetchall()} if files else set()
    columns = ", ".join(
        f'"{column.name}"' if column.name in have else f'cast(null as {column.duckdb_type}) as "{column.name}"'
        for column in (*entity.columns, *ENVELOPE)
    )
    return f"select {columns} from {parquet(files)}" if files else f"select {columns} where false"


def parquet(files: Iterable[Path]) -> str:
    """Return the table function that reads these Parquet files."""
    names = ", ".join(file_literal(path) for path in files)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


def file_literal(path: Path) -> str:
    """Return a path as the literal of DuckDB's readers, in which ``[``, ``*`` and ``?`` of a name are no patterns."""
    plain = "".join(f"[{character}]" if character in "[*?" else character for character in str(path))
    return text_literal(plain)


def text_literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _remove_leftovers(pin: Pin) -> None:
    """Remove what a landing left that was killed: it would have been the next batch."""
    shutil.rmtree(pin.root / "tmp", ignore_errors=True)
    name = f"{pin.sequence + 1:012d}-{pin.sequence + 1:012d}.parquet"
    for folder in FOLDERS:
        for path in (pin.root / folder).glob(f"*/*/{name}"):
            path.unlink()


_Record = TypeVar("_Record", Commit, Checkpoint)
_RECORDS: dict[Path, tuple[tuple[int, int, int], Commit | Checkpoint]] = {}
_RECORDS_KEPT = 5_000


def _read(path: Path, kind: type[_Record]) -> _Record:
    """Return a record. It never changes, so it is parsed once in a process, unless another file has its name."""
    found = path.stat()
    stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
    known = _RECORDS.get(path)
    if known is not None and known[0] == stamp and isinstance(known[1], kind):
        return known[1]
    record = kind.model_validate_json(path.read_bytes())
    if len(_RECORDS) >= _RECORDS_KEPT:
        _RECORDS.clear()
    _RECORDS[path] = (stamp, record)
    return record


def listed(folder: Path) -> list[str]:
    """Return the names in a folder, which need not exist."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _make_folder(folder: Path, root: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent, root)
    folder.mkdir(exist_ok=True)
    if folder != root:
        _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
