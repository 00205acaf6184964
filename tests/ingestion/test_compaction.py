"""Compaction changes how rows are stored and nothing that a reader sees, whatever dies and whoever reads meanwhile."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion import compaction
from ingestion.compaction import Compaction, compact, compact_if_needed, tiers
from ingestion.files import land_transactions
from ingestion.raw_zone import BATCHES, Commit, EntityCommit, File, Position, RawZone
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT, settings
from tests.ingestion.raw import pin, refused, rows


@pytest.fixture(autouse=True)
def nothing_beside(platform_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No compaction of another test is under way, and none goes on into another test."""
    assert platform_home.exists()
    monkeypatch.setattr(compaction, "_running", None)
    yield
    compaction._worker.submit(lambda: None).result()


# Compacts in a process of its own that kills itself right before or after the n-th rename into a place.
KILLED_COMPACTION = """
import os, signal, sys
from pathlib import Path
from ingestion.compaction import compact

moment, place, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
rename = Path.rename

def rename_and_die(self, target):
    global count
    dies = f"/raw/{place}" in str(target)
    count -= dies
    if moment == "after":
        rename(self, target)
    if dies and count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "before":
        rename(self, target)

Path.rename = rename_and_die
compact()
"""
LOG = ("_op", "_key", "_position", "_source_at", "_batch_id", "_sequence")


def put(count: int, entity: str = "charges", rows_each: int = 3) -> None:
    """Commit small batches of a log without the landing writer, which would take longer."""
    zone = RawZone(settings().raw_zone)
    for _ in range(count):
        with zone.writing() as batch:
            path, name = batch.new("data", "oltp", entity)
            at = datetime.now(UTC)
            batch_id = f"oltp-{batch.sequence:012d}"
            positions = [str(Position(1, batch.sequence, 1, n)) for n in range(rows_each)]
            found = [
                ("u", json.dumps([f"c{n}"]), position, at, batch_id, batch.sequence)
                for n, position in enumerate(positions)
            ]
            pq.write_table(pa.Table.from_pylist([dict(zip(LOG, row, strict=True)) for row in found]), path)
            part = EntityCommit(
                entity=entity,
                schema_version=1,
                read=rows_each,
                accepted=rows_each,
                unchanged=0,
                quarantined=0,
                deleted=0,
                files=[name],
            )
            batch.publish(
                Commit(
                    sequence=batch.sequence,
                    batch_id=batch_id,
                    source="oltp",
                    kind="log",
                    origin="",
                    position=positions[-1],
                    source_at=at,
                    landed_at=at,
                    code_version="0",
                    entities=[part],
                    parameters={"lsn": str(batch.sequence)},
                )
            )


def land_file(path: Path, *lines: str) -> None:
    path.write_text("transaction_id,merchant_id,amount,currency,transaction_at\n" + "\n".join(lines) + "\n")
    land_transactions(path)


def everything() -> list[object]:
    """All that a reader can see."""
    batches = [batch.model_dump() for source in ("oltp", "files") for batch in pin().batches(source)]
    for batch in batches:
        for part in batch["entities"]:
            part |= {"files": [], "quarantine_files": [], "resolved_files": []}
    known = pin()
    last = [known.last_of(source, name) for source, name in (("oltp", None), ("files", None), ("oltp", "lsn"))]
    return [
        batches,
        [None if commit is None else commit.model_copy(update={"entities": []}) for commit in last],
        rows("oltp", "charges", order="_position"),
        rows("oltp", "refunds", order="_position"),
        rows("files", "transactions", order="_position"),
        refused("files", "transactions"),
        known.sequence,
    ]


def files_on_disk() -> set[str]:
    root = settings().raw_zone
    return {str(path.relative_to(root)) for path in root.rglob("*.parquet")}


def files_named() -> set[str]:
    known = pin()
    merged = {file.name for files in known.checkpoint.files.values() for file in files}
    return merged | {name for commit in known.commits for part in commit.entities for name in part.files}


def test_a_reader_sees_the_same_rows_batches_and_progress_in_fewer_files(tmp_path: Path) -> None:
    for number in range(2):
        put(4)
        land_file(tmp_path / "a.csv", f"t{number},m,1,EUR,2026-01-01", f"b{number},m,x,EUR,2026-01-01")
    before = everything()
    assert compact() == Compaction(sequence=10, batches=10, merged_files=12, new_files=4, removed_files=0)
    assert everything() == before
    assert pin().commits == ()
    assert [len(pin().files(*place)) for place in (("oltp", "charges"), ("files", "transactions"))] == [1, 1]
    assert compact().batches == 0

    put(2)
    land_file(tmp_path / "a.csv", "t1,m,1,EUR,2026-01-01", "t9,m,2,EUR,2026-01-01")
    assert [row["transaction_id"] for row in rows("files", "transactions")] == ["t0", "t1", "t9"], "t1 stands"
    before = everything()
    assert compact().batches == 3
    assert everything() == before
    assert len(pin().files("oltp", "charges")) == 1
    assert len(pin().files("oltp", "charges", after=11)) == 1, "a merged file counts for the newest of its rows"
    assert pin().files("oltp", "charges", after=12) == []
    assert pin().batches("oltp", batch_id="oltp-000000000002")[0].parameters == {"lsn": "2"}


def test_a_row_is_rewritten_a_few_times_only() -> None:
    def file(number: int, size: int) -> File:
        name = f"data/oltp/charges/{number:012d}-{number:012d}.parquet"
        return File(name=name, size=size, born_at=datetime.now(UTC), repeats_keys=True)

    files: list[File] = []
    rewritten, total = 0, 0
    randomness = Random(1)  # noqa: S311 (sizes)
    for number in range(3_000):
        size = randomness.randrange(300_000, 900_000)
        total += size
        groups = tiers([*files, file(number, size)])
        sums = [sum(found.size for found in group) for group in groups]
        rewritten += sum(made for made, group in zip(sums, groups, strict=True) if len(group) > 1)
        files = [group[0] if len(group) == 1 else file(number, made) for made, group in zip(sums, groups, strict=True)]
        assert max(sums) <= compaction.LARGE_BYTES
        assert sum(sums) == total
    assert rewritten < 15 * total
    assert len(files) < total / compaction.LARGE_BYTES * 2 + 8


@pytest.mark.parametrize(
    ("moment", "place", "count"),
    [
        ("before", "data/", 1),  # everything is written aside
        ("after", "data/", 1),  # one merged file is in place beside what it merges
        ("before", "checkpoints/", 1),  # all files are in place, without a checkpoint
        ("after", "checkpoints/", 1),
    ],
)
def test_a_killed_compaction_loses_and_repeats_nothing(moment: str, place: str, count: int) -> None:
    put(4)
    compact()
    put(4)
    put(2, "refunds")
    before = everything()
    command = [sys.executable, "-c", KILLED_COMPACTION, moment, place, str(count)]
    assert subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode == -signal.SIGKILL
    assert everything() == before
    put(1)  # landing goes on, over what is left
    before = everything()
    compact()
    assert everything() == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "GRACE", timedelta(0))
        patch.setattr(compaction, "RECORD_GRACE", timedelta(0))
        compact()
    assert everything() == before
    assert files_on_disk() == files_named(), "what the killed compaction left has gone"
    assert list((settings().raw_zone / "commits").iterdir()) == []
    assert len(list((settings().raw_zone / "checkpoints").iterdir())) == 1


def test_replaced_files_stay_while_a_reader_or_a_warehouse_may_need_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(3)
    pinned = pin()
    old = set(pinned.files("oltp", "charges"))
    compact()
    assert compact().removed_files == 0
    assert all(path.exists() for path in old), "a pin is good for a while"

    monkeypatch.setattr(compaction, "GRACE", timedelta(0))
    warehouse = tmp_path / "warehouse.duckdb"
    warehouse.touch()
    note = settings().raw_zone / "pin-1.json"
    note.write_text(json.dumps({"warehouse": str(warehouse)}))
    bound_at = pinned.commits[-1].landed_at.timestamp() + 0.001
    os.utime(note, (bound_at, bound_at))
    assert compact().removed_files == 0
    put(3)  # born after the warehouse was bound, and replaced: its views cannot name these
    compact()
    assert compact().removed_files == 5
    assert all(path.exists() for path in old), "the views of the warehouse name them"

    os.utime(note)  # a run binds the views anew
    assert compact().removed_files == 3
    assert not any(path.exists() for path in old)
    warehouse.unlink()
    compact()
    assert not note.exists(), "a warehouse that is gone pins nothing"


def test_reading_and_landing_go_on_while_compactions_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "COMMITS", 5)
    monkeypatch.setattr(compaction, "RECORD_GRACE", timedelta(seconds=1))
    seen: list[tuple[int, int]] = []

    def read_all(landing_is_done: object) -> None:
        while not landing_is_done():  # type: ignore[operator]
            known = pin()
            count = sum(pq.read_metadata(path).num_rows for path in known.files("oltp", "charges"))
            seen.append((known.sequence, count))

    with ThreadPoolExecutor(max_workers=2) as threads:
        landing = threads.submit(_land_and_compact, 120)
        reading = threads.submit(read_all, landing.done)
        landing.result()
        reading.result()
    assert len(seen) > 10
    assert all(count == 3 * sequence for sequence, count in seen), "no row is missing or doubled at any moment"
    assert sorted(seen) == seen
    assert pin().checkpoint.sequence > 50
    assert len(rows("oltp", "charges")) == 360
    assert pin().checkpoint.files[BATCHES]


def _land_and_compact(count: int) -> None:
    for _ in range(count):
        put(1)
        compact_if_needed()


def test_an_error_of_a_compaction_beside_comes_back_at_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(compaction, "COMMITS", 1)
    put(1)
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "switch", fail)
        compact_if_needed()
        compaction._worker.submit(lambda: None).result()
        with pytest.raises(OSError, match="no space"):
            compact_if_needed()
    before = everything()
    assert compact().batches == 1
    assert everything() == before


def test_a_missing_record_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.raw_zone._ATTEMPTS", 3)
    put(3)
    (settings().raw_zone / "commits" / f"{2:012d}.json").unlink()
    with pytest.raises(UsageError, match=r"commit record of the raw zone .* is missing: restore it"):
        pin()
