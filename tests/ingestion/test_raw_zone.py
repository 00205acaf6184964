"""Batches are visible as a whole or not at all, however a landing dies, and only one landing runs at a time."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingestion.files import land_transactions
from ingestion.raw_zone import Commit, RawZone
from payments.settings import PROJECT_ROOT, settings
from tests.ingestion.raw import latest, pin

pytestmark = pytest.mark.usefixtures("platform_home")

# Lands a file in a process of its own that kills itself (as kill -9 does) right before or after a rename.
KILLED_LANDING = """
import os, signal, sys
from pathlib import Path
from ingestion.files import land_transactions

file, moment, suffix = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
rename = Path.rename

def rename_and_die(self, target):
    if moment == "after":
        rename(self, target)
    if str(target).endswith(suffix):
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "before":
        rename(self, target)

Path.rename = rename_and_die
land_transactions(file)
"""
LANDING = """
import sys
from pathlib import Path
from ingestion.files import land_transactions
print(land_transactions(Path(sys.argv[1])).sequence)
"""


def transactions(path: Path, first: int, last: int) -> Path:
    lines = [f"t{number},m,{number},EUR,2026-01-01" for number in range(first, last)]
    lines.append("broken,m,x,EUR,2026-01-01")
    path.write_text("transaction_id,merchant_id,amount,currency,transaction_at\n" + "\n".join(lines) + "\n")
    return path


def files_below(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != "landing.lock"
    )


@pytest.mark.parametrize(
    ("moment", "suffix", "is_committed"),
    [
        ("before", ".parquet", False),  # everything is written aside
        ("after", ".parquet", False),  # the data is in place, the quarantine is not
        ("before", ".json", False),  # all files are in place, without a commit record
        ("after", ".json", True),
    ],
)
def test_a_killed_landing_leaves_no_duplicate_and_no_hole(
    tmp_path: Path, moment: str, suffix: str, is_committed: bool
) -> None:
    land_transactions(transactions(tmp_path / "first.csv", 0, 50))
    second = transactions(tmp_path / "second.csv", 25, 100)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED_LANDING, str(second), moment, suffix], cwd=PROJECT_ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert pin().sequence == 1 + is_committed
    assert len(latest("files", "transactions")) == (100 if is_committed else 50), "half a batch is visible"
    leftovers = set(files_below(settings().raw_zone)) - committed_files()
    assert bool(leftovers) or is_committed

    report = land_transactions(second)
    (counts,) = report.entities
    assert (counts.read, counts.quarantined) == (76, 1)
    assert (counts.accepted, counts.unchanged) == ((0, 75) if is_committed else (50, 25))
    assert report.sequence == 2 + is_committed
    state = latest("files", "transactions")
    assert sorted(row["transaction_id"] for row in state) == sorted(f"t{number}" for number in range(100))
    assert set(files_below(settings().raw_zone)) == committed_files(), "leftovers of the killed landing stayed"


def committed_files() -> set[str]:
    found = {f"commits/{commit.sequence:012d}.json" for commit in pin().commits}
    for commit in pin().commits:
        for part in commit.entities:
            found |= {*part.files, *part.quarantine_files, *part.resolved_files}
    return found


def test_two_landings_at_once_follow_each_other(tmp_path: Path) -> None:
    paths = [transactions(tmp_path / f"{number}.csv", 0, 2_000) for number in range(2)]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", LANDING, str(path)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
        )
        for path in paths
    ]
    assert sorted(int(process.communicate(timeout=120)[0]) for process in both) == [1, 2]
    first, second = pin().commits
    assert (first.entities[0].accepted, second.entities[0].accepted, second.entities[0].unchanged) == (2000, 0, 2000)
    assert len(latest("files", "transactions")) == 2_000


def test_a_pinned_reader_sees_what_it_pinned(tmp_path: Path) -> None:
    zone = RawZone(settings().raw_zone)
    empty = zone.pin()
    land_transactions(transactions(tmp_path / "first.csv", 0, 10))
    pinned = zone.pin()
    land_transactions(transactions(tmp_path / "second.csv", 0, 20))
    assert (empty.sequence, pinned.sequence, zone.pin().sequence) == (0, 1, 2)
    assert empty.files("files", "transactions") == []
    assert [path.name for path in pinned.files("files", "transactions")] == ["000000000001-000000000001.parquet"]
    assert len(zone.pin().files("files", "transactions")) == 2
    assert zone.pin().files("files", "transactions", after=1) == zone.pin().files("files", "transactions")[1:]


def test_commit_records_keep_their_counts_and_times(tmp_path: Path) -> None:
    land_transactions(transactions(tmp_path / "first.csv", 0, 10))
    record = settings().raw_zone / "commits" / "000000000001.json"
    commit = Commit.model_validate_json(record.read_text())
    assert commit == pin().commits[0]
    assert commit.landed_at.tzinfo is not None
    assert commit.source_at <= commit.landed_at
    (part,) = commit.entities
    assert part.read == part.accepted + part.unchanged + part.quarantined == 11
    assert commit.position == "00000000/0000000000000001/0000000000000000/0000000a"


def test_a_failing_landing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    path = transactions(tmp_path / "first.csv", 0, 10)
    with monkeypatch.context() as patch:
        patch.setattr("ingestion.raw_zone._sync", fail)
        with pytest.raises(OSError, match="no space"):
            land_transactions(path)
    assert files_below(settings().raw_zone) == []
    assert land_transactions(path).sequence == 1
