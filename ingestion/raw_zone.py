"""The raw zone on disk: Parquet files and the commit records that make them visible.

A batch writes its files aside (``tmp/``), syncs them, renames them into place, and renames its commit record last. A
file that no commit record names does not exist for a reader: a batch is visible as a whole or not at all, and the next
batch removes what a killed one left behind. Readers pin the last committed sequence and name exactly the files of the
batches up to it.

Layout below the root::

    commits/000000000012.json
    data/<source>/<entity>/000000000012-000000000012.parquet         highest-lowest landing sequence
    quarantine/<source>/<entity>/000000000012-000000000012.parquet   what was refused
    resolved/<source>/<entity>/000000000012-000000000012.parquet     ids of quarantined records that are settled
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ingestion.contracts import ENVELOPE, Entity

FOLDERS = ("data", "quarantine", "resolved")


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


@dataclass(frozen=True)
class Pin:
    """The raw zone as it stood at one committed sequence; later batches do not change it."""

    root: Path
    commits: tuple[Commit, ...]

    @property
    def sequence(self) -> int:
        """The last committed sequence; 0 when nothing has landed."""
        return self.commits[-1].sequence if self.commits else 0

    def last_of(self, source: str) -> Commit | None:
        """Return the newest commit of a source."""
        return next((commit for commit in reversed(self.commits) if commit.source == source), None)

    def files(self, source: str, entity: str, folder: str = "data", after: int = 0) -> list[Path]:
        """Return the committed files of an entity with rows newer than sequence ``after``, oldest first."""
        field = {"data": "files", "quarantine": "quarantine_files", "resolved": "resolved_files"}[folder]
        return [
            self.root / name
            for commit in self.commits
            if commit.source == source and commit.sequence > after
            for part in commit.entities
            if part.entity == entity
            for name in getattr(part, field)
        ]


class RawZone:
    """A raw zone below a folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def pin(self) -> Pin:
        """Return the raw zone as it stands now."""
        records = sorted((self.root / "commits").glob("[0-9]*.json"))
        return Pin(self.root, tuple(Commit.model_validate_json(record.read_bytes()) for record in records))

    @contextmanager
    def writing(self) -> Iterator["BatchFiles"]:
        """Yield the files of the next batch to the only writer; another landing waits here until this one ends.

        What a killed landing left behind is removed first.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "landing.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the kernel however the process ends
            pin = self.pin()
            _remove_leftovers(pin)
            batch = BatchFiles(pin)
            try:
                yield batch
            finally:
                shutil.rmtree(batch.aside, ignore_errors=True)


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
        for name in self._names:
            _sync(self.aside / name)
        self._move_data()
        self._move_commit(commit)

    def _move_data(self) -> None:
        for name in self._names:
            target = self.pin.root / name
            _make_folder(target.parent, self.pin.root)
            (self.aside / name).rename(target)
        for parent in {(self.pin.root / name).parent for name in self._names}:
            _sync(parent)

    def _move_commit(self, commit: Commit) -> None:
        record = self.aside / "commit.json"
        record.write_text(commit.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _sync(record)
        target = self.pin.root / "commits" / f"{commit.sequence:012d}.json"
        _make_folder(target.parent, self.pin.root)
        record.rename(target)
        _sync(target.parent)


def relation(entity: Entity, files: Iterable[Path], present: Iterable[str]) -> str:
    """Return SQL that reads an entity's files: the columns of its contract and the envelope.

    ``present`` names the columns that the files have; a column that the contract gained since is null.
    """
    have = set(present)
    columns = ", ".join(
        f'"{column.name}"' if column.name in have else f'cast(null as {column.duckdb_type}) as "{column.name}"'
        for column in (*entity.columns, *ENVELOPE)
    )
    return f"select {columns} from {parquet(files)}"


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
    shutil.rmtree(pin.root / "tmp", ignore_errors=True)
    committed = {
        pin.root / name
        for commit in pin.commits
        for part in commit.entities
        for name in (*part.files, *part.quarantine_files, *part.resolved_files)
    }
    for folder in FOLDERS:
        for path in (pin.root / folder).glob("*/*/*.parquet"):
            if path not in committed:
                path.unlink()


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
