"""A raw zone written without the landing writer: what dbt must read, and what must not pass behind the writer."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def commit(raw: Path, sequence: int, entity: str, rows: Sequence[tuple[str, Row]], at: datetime) -> None:
    """Commit one batch of an operational entity; each row is an operation (r, u, d) and its columns."""
    records = [
        {
            **row,
            "_op": op,
            "_key": json.dumps([next(iter(row.values()))]),
            "_position": f"00000001/{sequence:016x}/{sequence:016x}/{number:08x}",
            "_source_at": at,
            "_content_hash": content_hash(row),
        }
        for number, (op, row) in enumerate(rows)
    ]
    commit_records(raw, sequence, entity, records, at)


def content_hash(row: Row) -> str:
    """Return a digest of the columns of a row."""
    return md5(json.dumps(row, default=str).encode(), usedforsecurity=False).hexdigest()


def commit_records(raw: Path, sequence: int, entity: str, records: Sequence[Row], at: datetime) -> None:
    """Commit one batch of an operational entity: records with their envelope, but for what the batch gives them."""
    source, name = "oltp", f"{sequence:012d}"
    batch = f"{source}-{name}"
    file = f"data/{source}/{entity}/{name}-{name}.parquet"
    (raw / file).parent.mkdir(parents=True, exist_ok=True)
    landed = [{**record, "_schema_version": 1, "_batch_id": batch, "_sequence": sequence} for record in records]
    pq.write_table(pa.Table.from_pylist(landed), raw / file)
    deleted = sum(record["_op"] == "d" for record in records)
    counts = {"read": len(records) - deleted, "accepted": len(records) - deleted, "unchanged": 0, "quarantined": 0}
    record = {
        "sequence": sequence,
        "batch_id": batch,
        "source": source,
        "kind": "snapshot",
        "origin": "by hand",
        "position": f"{sequence}",
        "source_at": at.astimezone(UTC).isoformat(),
        "landed_at": at.astimezone(UTC).isoformat(),
        "code_version": "0",
        "entities": [
            {
                "entity": entity,
                "schema_version": 1,
                **counts,
                "deleted": deleted,
                "files": [file],
                "quarantine_files": [],
            }
        ],
    }
    (raw / "commits").mkdir(exist_ok=True)
    (raw / "commits" / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


def tamper(raw: Path, entity: str, column: str, value: str) -> None:
    """Overwrite a column of the first row of a landed transaction file, as no landing would."""
    file = next((raw / "data" / "files" / entity).glob("*.parquet"))
    rows = pq.read_table(file).to_pylist()
    schema = pq.read_schema(file)
    rows[0][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
