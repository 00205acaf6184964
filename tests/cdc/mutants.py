"""Deliberate bugs in the stream, and the tests that must catch each: ``python -m tests.cdc.mutants`` prints the table.

A bug is a text of the program and what stands in its place. It is planted in a copy of the packages, and the tests that
should notice it run there. A bug that no test notices is a hole in the tests: the command then exits with 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from payments.settings import PROJECT_ROOT

_COPIED = ("payments", "ingestion", "models", "seeds", "macros", "tests", "analyses", "docs", "pyproject.toml")
_SECONDS = 900
_STREAM = "ingestion/cdc/stream.py"
_SLOT = "ingestion/cdc/slot.py"


@dataclass(frozen=True)
class Mutant:
    """A bug: ``old`` stands once in ``file`` and becomes ``new``; ``tests`` are arguments of pytest."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of a bug: the first test that failed, None when none did."""

    mutant: Mutant
    caught_by: str | None
    seconds: float


def _stream(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/cdc/test_stream.py::test_{name}" for name in names)


MUTANTS = (
    Mutant(
        "acknowledge before landing",
        _STREAM,
        "report, reached = land(batch), batch.end_lsn\n                    reader.acknowledge(reached)\n",
        "reached = batch.end_lsn\n                    reader.acknowledge(reached)\n"
        "                    report = land(batch)\n",
        _stream("a_batch_that_was_not_published_is_read_again"),
    ),
    Mutant(
        "acknowledge what a keepalive says while a batch is under way",
        _SLOT,
        "            self.wal_end = max(self.wal_end, wal_end)\n            if must_answer:",
        "            self.wal_end = self._acknowledged = max(self.wal_end, wal_end)\n            if must_answer:",
        _stream("what_a_keepalive_says_is_not_acknowledged_while_a_batch_is_under_way"),
    ),
    Mutant(
        "the LSN of the last change as the cursor",
        _SLOT,
        "return LogBatch(self.epoch, start, end.end_lsn, end.committed_at,",
        "return LogBatch(self.epoch, start, self._last_lsn, end.committed_at,",
        _stream("a_snapshot_first_then_every_change_once"),
    ),
    Mutant(
        "what the server sends again is landed again",
        _SLOT,
        "sql.SQL(lsn_text(start_lsn))",
        'sql.SQL("0/0")',
        _stream("what_is_sent_again_is_left_out"),
    ),
    Mutant(
        "a moved slot is not noticed",
        "ingestion/cdc/generation.py",
        'if confirmed > int(last.parameters["lsn"]):',
        "if confirmed < 0:",
        _stream("a_slot_that_is_not_where_it_was_left_is_refused"),
    ),
    Mutant(
        "`>=` for `>` where slot and raw zone meet",
        "ingestion/cdc/generation.py",
        'if confirmed > int(last.parameters["lsn"]):',
        'if confirmed >= int(last.parameters["lsn"]):',
        _stream("a_snapshot_first_then_every_change_once"),
    ),
    Mutant(
        "`<` for `<=` at the end of a range of the snapshot",
        "ingestion/cdc/snapshot.py",
        '("<=", found.up_to)',
        '("<", found.up_to)',
        _stream("a_large_table_lands_in_ranges"),
    ),
    Mutant(
        "an interrupted snapshot counts as whole",
        "ingestion/cdc/snapshot.py",
        "            missing.append(Range(name, above=landed.up_to))",
        "            continue",
        _stream("a_large_table_goes_on_behind_the_range_at_which_it_was_interrupted"),
    ),
    Mutant(
        "the epoch never grows",
        "ingestion/oltp.py",
        "return epoch if is_same_log else epoch + 1",
        "return epoch",
        ("tests/ingestion/test_oltp.py::test_the_epoch_grows_when_the_log_is_another_one",),
    ),
    Mutant(
        "large values that the log does not repeat are not filled",
        "ingestion/cdc/records.py",
        "if in_part is not None and any(in_part):",
        "if in_part is not None and in_part[1]:",
        _stream("a_large_value_that_the_log_does_not_repeat_is_filled"),
    ),
    Mutant(
        "large values are filled with what a snapshot found later",
        "ingestion/cdc/records.py",
        "            if first < place:\n",
        "            if first > place:\n",
        _stream("no_change_gets_a_value_that_came_after_it"),
    ),
    Mutant(
        "large values are filled across a gap of the log",
        "ingestion/cdc/records.py",
        " and _sequence >= {self._snapshots.since}",
        "",
        _stream("no_change_gets_a_value_from_before_a_gap"),
    ),
    Mutant(
        "large values are filled with those of a former life of their key",
        "ingestion/cdc/records.py",
        "                    self._gone.pop(self._key(change), None)\n                    return None\n",
        "                    return None\n",
        _stream("a_new_life_of_a_key_gets_nothing_of_the_former_one"),
    ),
    Mutant(
        "truncations are not told",
        _SLOT,
        "self.tables.add(wanted[0].name, truncation(wanted[0], position, self._begin))",
        "pass",
        _stream("truncation_deletes_every_row_once"),
    ),
    Mutant(
        "the tables of one truncation share a position",
        _SLOT,
        "position = Position(self.epoch, self._begin.commit_lsn, lsn, n)",
        "position = Position(self.epoch, self._begin.commit_lsn, lsn, 0)",
        _stream("changes_that_share_a_place_of_the_log_have_positions_of_their_own"),
    ),
    Mutant(
        "a changed key leaves the old row",
        "ingestion/cdc/changes.py",
        "    if not is_moved.any():\n",
        "    if len(turns):\n",
        _stream("a_changed_key_is_a_deletion_and_a_creation"),
    ),
    Mutant(
        "the order among changes that share an LSN is lost",
        "ingestion/cdc/changes.py",
        "_unchanged(entity, view, new, index), 2 * turns + is_moved)",
        "_unchanged(entity, view, new, index), 0 * turns + is_moved)",
        _stream("changes_that_share_a_place_of_the_log_have_positions_of_their_own"),
    ),
    Mutant(
        "rows from before a change of columns are read by the new ones",
        _SLOT,
        "                    self._decode()  # what came before has the old columns\n",
        "                    pass\n",
        _stream("a_table_that_changes_within_a_batch_is_read_as_it_was"),
    ),
    Mutant(
        "the commit record before the data",
        "ingestion/raw_zone.py",
        "        move_files(self.aside, self.pin.root, self._names)\n"
        '        move_record(self.aside, self.pin.root, f"commits/{commit.sequence:012d}.json", commit)\n',
        '        move_record(self.aside, self.pin.root, f"commits/{commit.sequence:012d}.json", commit)\n'
        "        move_files(self.aside, self.pin.root, self._names)\n",
        ("tests/ingestion/test_raw_zone.py::test_a_killed_landing_leaves_no_duplicate_and_no_hole",),
    ),
    Mutant(
        "the checkpoint of a compaction before its files",
        "ingestion/compaction.py",
        "    move_files(draft.aside, root, draft.names)\n"
        '    move_record(draft.aside, root, f"checkpoints/{checkpoint.sequence:012d}.json", checkpoint)\n',
        '    move_record(draft.aside, root, f"checkpoints/{checkpoint.sequence:012d}.json", checkpoint)\n'
        "    move_files(draft.aside, root, draft.names)\n",
        ("tests/ingestion/test_compaction.py::test_a_killed_compaction_loses_and_repeats_nothing",),
    ),
    Mutant(
        "a batch counts as whole without all of its changes",
        "ingestion/cdc/assembly.py",
        "pending.is_whole &= pending.rows.get(partition, 0) == barrier.rows",
        "pending.is_whole &= True",
        ("tests/cdc/test_assembly.py",),
    ),
    Mutant(
        "a change that the broker repeats is taken twice",
        "ingestion/cdc/assembly.py",
        'if position <= pending.last.get(partition, b""):',
        'if position < b"":',
        ("tests/cdc/test_assembly.py",),
    ),
    Mutant(
        "a hole between batches of the broker is not noticed",
        "ingestion/cdc/assembly.py",
        "if barrier.start_lsn > lsn:",
        "if barrier.start_lsn < 0:",
        ("tests/cdc/test_assembly.py",),
    ),
    Mutant(
        "progress of the copies before they are written",
        "ingestion/cdc/copies.py",
        "    with _asking() as connection:\n        copies.follow(connection, touched)\n",
        "    _write_progress(store, _reached(pin, last, progress))\n"
        "    with _asking() as connection:\n        copies.follow(connection, touched)\n",
        ("tests/cdc/test_copies.py::test_a_crash_or_a_store_that_is_down_repeats_the_work",),
    ),
    Mutant(
        "a stream lands what another has landed meanwhile",
        _STREAM,
        "(batch.epoch, batch.start_lsn):\n",
        "(batch.epoch, batch.start_lsn) and last.sequence < 0:\n",
        ("tests/faults/test_simulator.py::test_a_stream_that_was_left_behind_lands_nothing",),
    ),
)


def planted(text: str, mutant: Mutant) -> str:
    """Return a file's text with the bug in it. Raises ValueError unless the place is there, once."""
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.name}: its text stands {count} times in {mutant.file}, not once: write it anew")
    return text.replace(mutant.old, mutant.new)


def judge(mutant: Mutant) -> Verdict:
    """Plant a bug in a copy and run the tests that should notice it."""
    began = time.monotonic()
    with _copy() as copy:
        path = copy / mutant.file
        path.write_text(planted(path.read_text(encoding="utf-8"), mutant), encoding="utf-8")
        code, output = _run(copy, mutant.tests)
    failed = [line.split(" ")[1].split("::")[-1] for line in output.splitlines() if line.startswith("FAILED ")]
    if code not in (0, 1) or (code == 1 and not failed):
        raise RuntimeError(f"{mutant.name}: the tests could not run:\n{output[-3000:]}")
    return Verdict(mutant, failed[0] if failed else None, time.monotonic() - began)


def judge_all(mutants: Sequence[Mutant], workers: int = 2) -> Iterator[Verdict]:
    """Judge bugs, some at a time. Raises RuntimeError when the tests do not even pass without any."""
    with _copy() as copy:
        code, output = _run(copy, dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    if code != 0:
        raise RuntimeError(f"the tests fail without a bug:\n{output[-3000:]}")
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(judge, mutants)


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant ") as folder:
        copy = Path(folder)
        copy.chmod(0o755)  # the servers' user comes by
        for name in _COPIED:
            source = PROJECT_ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        yield copy


def _run(copy: Path, tests: Iterable[str]) -> tuple[int, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PAYMENTS_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=kept, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"FAILED x::nothing-ends-within-{_SECONDS}-s -"
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Judge every bug, print the table, and return the exit code."""
    print(f"{'bug':<64} {'caught by':<70} seconds")
    survived = 0
    for verdict in judge_all(MUTANTS):
        survived += verdict.caught_by is None
        print(f"{verdict.mutant.name:<64} {verdict.caught_by or 'NOTHING':<70} {verdict.seconds:7.1f}", flush=True)
    print(f"{len(MUTANTS)} bugs, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main())
