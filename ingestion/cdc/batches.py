"""What flows from the log to the raw zone: whole transactions, their changes as one Arrow table an entity."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from ingestion.contracts import Entity

LOG_COLUMNS = (
    "_op",
    "_before",
    "_unchanged_columns",
    "_position",
    "_changed_at",
    "_transaction_id",
    "_rule",
    "_reason",
)
"""What a row of a table of changes tells besides the columns of its entity, all of it text (see :class:`LogBatch`)."""
EVENT_COLUMNS = ("merchant_id", "event_id", "event_type", "object_id", "object_version", "payload", "created_at")
"""The columns of ``ops.outbox``."""


@dataclass(frozen=True)
class LogBatch:
    """Whole transactions in the order of their commits: all that changed between two places of the log.

    ``changes`` has a table for each entity that changed, its rows in the order of their positions: the columns of the
    entity's contract, as text, then :data:`LOG_COLUMNS`. ``_op`` is c (created), u (updated), d (deleted: only the key
    counts) or t (all rows of the table are gone); ``_before`` is what the log tells of the old row (JSON),
    ``_unchanged_columns`` the names (JSON) of large values that the row kept and the log does not repeat,
    ``_rule`` and ``_reason`` say why a change cannot land. ``events`` has the rows written to ``ops.outbox``:
    :data:`EVENT_COLUMNS` and ``_position``.
    """

    epoch: int
    start_lsn: int
    end_lsn: int
    committed_at: datetime
    transactions: int
    changes: Mapping[str, pa.Table]
    events: pa.Table | None = None

    @property
    def rows(self) -> int:
        """The number of changes."""
        return sum(table.num_rows for table in self.changes.values())


def json_text(value: object) -> str:
    """Return JSON as a batch of the log has it: equal values are equal texts."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def change_schema(entity: Entity) -> pa.Schema:
    """Return the columns of a table of changes: text, all of them."""
    return pa.schema([(name, pa.string()) for name in (*entity.column_names, *LOG_COLUMNS)])


_Keep = Callable[[pa.Table, Path], pa.Table]


@dataclass
class ChangeTables:
    """Tables that grow by pieces; what exceeds ``memory_bytes`` waits in files, mapped and already unlinked."""

    folder: Path
    memory_bytes: int = 128 * 1024 * 1024
    rows: int = 0
    _pieces: dict[str, list[pa.Table]] = field(default_factory=dict)
    _in_memory: dict[str, list[pa.Table]] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, name: str, piece: pa.Table) -> None:
        """Append rows to the table of a name."""
        self._in_memory.setdefault(name, []).append(piece)
        self._bytes += piece.nbytes
        self.rows += piece.num_rows
        if self._bytes > self.memory_bytes:
            for held in list(self._in_memory):
                self._keep(held, _mapped)
            self._bytes = 0

    def take(self) -> dict[str, pa.Table]:
        """Return the tables and begin anew."""
        for name in list(self._in_memory):
            self._keep(name, lambda table, _: table)
        tables = {name: pa.concat_tables(pieces) for name, pieces in self._pieces.items()}
        self._pieces, self._bytes, self.rows = {}, 0, 0
        return tables

    def _keep(self, name: str, keep: _Keep) -> None:
        self._pieces.setdefault(name, []).append(keep(pa.concat_tables(self._in_memory.pop(name)), self.folder))


def _mapped(table: pa.Table, folder: Path) -> pa.Table:
    """Write a table into a file without a name and return it as that file's memory map: the kernel pages it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".arrow") as file:
        with pa.ipc.new_file(file.name, table.schema) as writer:
            writer.write_table(table)
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()
