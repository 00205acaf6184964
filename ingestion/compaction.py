"""Compaction of the raw zone: many small batches become few files, while others read and land.

A stream lands several batches a second; each is a commit record and a small file for every entity it touched. A
compaction merges files aside and writes a checkpoint that stands for all commit records up to its sequence. The
checkpoint is renamed into place last: a killed compaction changed nothing. Rows stay what they were, with their
batches.

Files are merged in tiers: a file joins its newer neighbours once these are as large together as it is. So a row is
rewritten a few times in its life, an entity has a handful of small files, and a large file is left alone.

What was replaced stays until no reader can need it: for ``GRACE``, and as long as a warehouse whose last run began
while the file was current names it in its views.
"""

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from ingestion.raw_zone import (
    BATCHES,
    FOLDERS,
    GRACE,
    Checkpoint,
    Commit,
    File,
    Pin,
    RawZone,
    Replaced,
    batch_table,
    emptied,
    listed,
    move_files,
    move_record,
    parquet,
    text_literal,
)
from payments.settings import PROJECT_ROOT, settings

COMMITS = 200
"""How many batches land before :func:`compact_if_needed` compacts."""
SMALL_BYTES = 4 * 1024 * 1024
"""Files below this size are merged whenever they meet."""
LARGE_BYTES = 128 * 1024 * 1024
"""A file does not grow beyond this size by merging."""
RECORD_GRACE = timedelta(minutes=1)
"""How long a commit record stays after a checkpoint replaced it: readers list and read in one go."""
MEMORY_LIMIT = "1GB"


@dataclass(frozen=True)
class Compaction:
    """What a compaction did: batches whose records it replaced, files it merged and made, files it removed."""

    sequence: int
    batches: int
    merged_files: int
    new_files: int
    removed_files: int


def compact() -> Compaction:
    """Merge what has landed since the last compaction, and remove what no reader needs any more."""
    zone = RawZone(settings().raw_zone)
    with zone.alone("compaction.lock"):
        removed = remove_replaced(zone)
        pin = zone.pin()
        if not pin.commits:
            return Compaction(pin.sequence, 0, 0, 0, removed)
        aside = emptied(zone.root / "compacting")
        now = datetime.now(UTC)
        draft = Draft(aside, pin, now)
        files = {folder: draft.merged(folder, found) for folder, found in known_files(pin).items()}
        files[BATCHES] = draft.merged(BATCHES, [*files.get(BATCHES, []), *draft.batches(pin.commits)])
        checkpoint = Checkpoint(
            sequence=pin.sequence,
            made_at=now,
            files=files,
            told=told(pin),
            replaced=[*still_there(pin), *draft.replaced],
            rewritten=pin.checkpoint.rewritten,
        )
        switch(draft, checkpoint)
        shutil.rmtree(aside)
        return Compaction(pin.sequence, len(pin.commits), len(draft.replaced), len(draft.names), removed)


_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compaction")
_running: "Future[Compaction] | None" = None


def compact_if_needed() -> None:
    """Start a compaction beside the caller when many batches have landed since the last one; return at once.

    Call it after landing. Raises what the compaction before it raised.
    """
    global _running  # noqa: PLW0603 (one compaction a process)
    if _running is not None:
        if not _running.done():
            return
        done, _running = _running, None
        done.result()
    pin = RawZone(settings().raw_zone).pin()
    if len(pin.commits) >= COMMITS:
        _running = _worker.submit(compact)


@dataclass
class Draft:
    """The files of a checkpoint in the making: written aside, by the names that they get."""

    aside: Path
    pin: Pin
    now: datetime
    names: list[str] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)

    def merged(self, folder: str, files: list[File]) -> list[File]:
        """Merge an entity's files by tiers; return what it has then, oldest first."""
        return [group[0] if len(group) == 1 else self._merge(folder, group) for group in tiers(files)]

    def batches(self, commits: Iterable[Commit]) -> list[File]:
        """Write the rows of ``platform.batches`` that commits stand for, in one file."""
        found = list(commits)
        table = batch_table(found)
        if not table.num_rows:
            return []
        name = f"{BATCHES}/{found[-1].sequence:012d}-{found[0].sequence:012d}.parquet"
        path = self.new(name)
        pq.write_table(table, path, compression="zstd")
        return [self.file(name, repeats_keys=False)]

    def new(self, name: str) -> Path:
        """Return where to write a file now."""
        path = self.aside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.names.append(name)
        return path

    def file(self, name: str, *, repeats_keys: bool) -> File:
        """Describe a file that was written."""
        size = (self.aside / name).stat().st_size
        return File(name=name, size=size, born_at=self.now, repeats_keys=repeats_keys)

    def replace(self, file: File, *, is_erased: bool = False) -> None:
        """Note that a file is current no more; one that was only written aside is forgotten."""
        if file.name in self.names:
            self.names.remove(file.name)
        else:
            gone = Replaced(name=file.name, born_at=file.born_at, replaced_at=self.now, is_erased=is_erased)
            self.replaced.append(gone)

    def _merge(self, folder: str, group: list[File]) -> File:
        name = f"{folder}/{group[-1].highest:012d}-{group[0].lowest:012d}.parquet"
        paths = [self.aside / file.name if file.name in self.names else self.pin.root / file.name for file in group]
        # Aside under another name, for one of the files may have this one.
        for file in group:
            self.replace(file)
        path = self.new(name)
        written = path.with_suffix(".merged")
        is_data = folder.startswith("data/") and not folder.startswith("data/platform/")
        rows = f"select * from {parquet(paths)} {'order by _position' if is_data else ''}"
        copied = copy(rows, written, self.aside)
        if copied != (expected := sum(pq.read_metadata(path).num_rows for path in paths)):
            raise AssertionError(f"{name} would have {copied} rows of {expected}")
        written.rename(path)
        return self.file(name, repeats_keys=True)


def tiers(files: list[File]) -> list[list[File]]:
    """Return files of one entity in groups to merge, oldest first: each group is larger than all that is newer."""
    groups: list[list[File]] = []
    for file in files:
        groups.append([file])
        while len(groups) > 1 and _joins(_size(groups[-2]), _size(groups[-1])):
            groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _joins(older: int, newer: int) -> bool:
    return older <= max(newer, SMALL_BYTES) and older + newer <= LARGE_BYTES


def _size(group: list[File]) -> int:
    return sum(file.size for file in group)


def copy(rows: str, path: Path, spill: Path) -> int:
    """Write rows to a Parquet file, within bounded memory; return how many."""
    spilling: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(spill / "spill"),
        "threads": 1,
    }
    target = f"{text_literal(str(path))} (format parquet, compression zstd)"
    with duckdb.connect(config=spilling) as con:
        con.execute("set TimeZone = 'UTC'")
        copied = con.execute(f"copy ({rows}) to {target}").fetchone()
        return int(copied[0]) if copied else 0


def known_files(pin: Pin) -> dict[str, list[File]]:
    """Return all files of a pin by folder, oldest first."""
    found = {folder: list(files) for folder, files in pin.checkpoint.files.items()}
    for commit in pin.commits:
        for part in commit.entities:
            for name in (*part.files, *part.quarantine_files, *part.resolved_files):
                found.setdefault(name.rsplit("/", 1)[0], []).append(
                    File(
                        name=name,
                        size=(pin.root / name).stat().st_size,
                        born_at=commit.landed_at,
                        repeats_keys=commit.kind == "log",
                    )
                )
    return found


def told(pin: Pin) -> list[Commit]:
    """Return the commits to keep whole, oldest first: the last of each source and of each of its parameters."""
    newest: dict[tuple[str, str], Commit] = {}
    for commit in (*pin.checkpoint.told, *pin.commits):
        for parameter in ("", *commit.parameters):
            newest[commit.source, parameter] = commit
    kept = {commit.sequence: commit for commit in newest.values()}
    return [kept[sequence].model_copy(update={"entities": []}) for sequence in sorted(kept)]


def still_there(pin: Pin) -> list[Replaced]:
    """Return the replaced files that were not removed yet."""
    return [file for file in pin.checkpoint.replaced if (pin.root / file.name).exists()]


def switch(draft: Draft, checkpoint: Checkpoint) -> None:
    """Put the files of a draft in place, and the checkpoint that names them last."""
    root = draft.pin.root
    move_files(draft.aside, root, draft.names)
    move_record(draft.aside, root, f"checkpoints/{checkpoint.sequence:012d}.json", checkpoint)


def remove_replaced(zone: RawZone) -> int:
    """Remove what no reader needs any more, and what killed runs left; return how many files went.

    The caller is the only one that compacts.
    """
    pin = zone.pin()
    pinned = _pinned_at(zone.root)
    kept = {file.name for file in pin.checkpoint.replaced if _is_needed(file, pinned)}
    kept |= {file.name for files in known_files(pin).values() for file in files}
    gone = [
        zone.root / name
        for folder in FOLDERS
        for place in (zone.root / folder).glob("*/*")
        for file in listed(place)
        # What is newer than the pin is being landed.
        if (name := f"{folder}/{place.parent.name}/{place.name}/{file}") not in kept and int(file[:12]) <= pin.sequence
    ]
    gone += _old_records(zone.root, pin.checkpoint)
    if gone:
        with zone.alone("landing.lock"):
            pass  # the landing that may still read these has ended; a later one does not know them
    for path in gone:
        path.unlink()
    return len(gone)


def _is_needed(file: Replaced, pinned: list[datetime]) -> bool:
    """Say whether a reader may have a file open, or a warehouse that pinned it names it in a view.

    A run writes its pin before it looks which files there are: it may have seen files that were born a little later.
    """
    if file.is_erased:
        return False
    if datetime.now(UTC) - file.replaced_at < GRACE:
        return True
    return any(file.born_at <= at + GRACE and at < file.replaced_at for at in pinned)


def _pinned_at(root: Path) -> list[datetime]:
    """Return when each warehouse that still exists bound its views last."""
    found = []
    for pin in root.glob("pin-*.json"):
        try:
            warehouse = json.loads(pin.read_bytes())["warehouse"]
        except (ValueError, KeyError, TypeError):  # being written
            warehouse = ""
        if warehouse and not (PROJECT_ROOT / warehouse).exists():
            pin.unlink()
        else:
            found.append(datetime.fromtimestamp(pin.stat().st_mtime, UTC))
    return found


def _old_records(root: Path, checkpoint: Checkpoint) -> list[Path]:
    if datetime.now(UTC) - checkpoint.made_at < RECORD_GRACE or not checkpoint.sequence:
        return []
    last = f"{checkpoint.sequence:012d}.json"
    return [
        *(root / "commits" / name for name in listed(root / "commits") if name <= last),
        *(root / "checkpoints" / name for name in listed(root / "checkpoints") if name < last),
    ]
