"""Quarantine: what was refused, why, and landing it again after a fix."""

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from ingestion.contracts import Entity, entities
from ingestion.document_records import document_of, is_document, stage
from ingestion.documents import SOURCE as DOCUMENTS
from ingestion.documents import document_batch
from ingestion.files import land_mapped
from ingestion.landing import LandingReport, Staged, open_items
from ingestion.mapping import Mapping, read_mapping
from ingestion.raw_zone import Pin, RawZone
from payments.errors import UsageError
from payments.settings import settings

SOURCES = ("oltp", "documents", "files")
UNREPLAYABLE = ("card_number", "broken_row", "broken_json")
"""Rules whose records cannot be landed again from quarantine: digits were removed, or the text is no record."""


@dataclass(frozen=True)
class QuarantinedRecord:
    """A record in quarantine that is not settled; ``record`` is its text, card digits removed."""

    source: str
    entity: str
    rule: str
    reason: str
    record: str
    origin: str
    quarantined_at: datetime
    batch_id: str
    sequence: int


@dataclass(frozen=True)
class QuarantineCount:
    """How many open records of an entity one batch refused by one rule."""

    batch_id: str
    source: str
    entity: str
    rule: str
    records: int


def list_quarantine(batch_id: str | None = None, limit: int | None = None) -> list[QuarantinedRecord]:
    """Return the open records, oldest batch first; a record leaves when it was replayed or its source was mended."""
    where = "" if batch_id is None else "where batch_id = $batch_id"
    rows = _query(
        f"""
        select source, entity, rule, reason, record, origin, quarantined_at, batch_id, sequence
        from open_items
        {where}
        order by sequence, source, entity, place
        {"" if limit is None else f"limit {int(limit)}"}
        """,
        batch_id,
    )
    return [QuarantinedRecord(*row) for row in rows]


def count_quarantine() -> list[QuarantineCount]:
    """Return the number of open records by batch, entity and rule, oldest batch first."""
    rows = _query(
        """
        select batch_id, source, entity, rule, count(*)
        from open_items
        group by sequence, batch_id, source, entity, rule
        order by sequence, batch_id, source, entity, rule
        """,
        None,
    )
    return [QuarantineCount(*row) for row in rows]


def replay(batch_id: str, mapping: Path | None = None, default_currency: str | None = None) -> LandingReport:
    """Land the open records of a batch again, through the same writer and rules, and settle those that now fit.

    Records of a file take the mapping and default currency that their batch had, unless others are given. Records whose
    card digits were removed and lines that are no record stay: land a mended file instead. Rows of the operational
    store are read again by its next landing. Raises ``UsageError`` when nothing can be replayed.
    """
    pin = RawZone(settings().raw_zone).pin()
    commit = next((commit for commit in pin.commits if commit.batch_id == batch_id), None)
    if commit is None:
        raise UsageError(f"No batch {batch_id} has landed: see payments quarantine list.")
    if commit.source == "oltp":
        raise UsageError("Rows of the operational store are not replayed: mend them there and run payments land.")
    refused = {
        part.entity: records
        for part in commit.entities
        if (records := _replayable(pin, entities(commit.source)[part.entity], batch_id))
    }
    if not refused:
        raise UsageError(f"Batch {batch_id} has no open record that can be replayed: see payments quarantine list.")
    if commit.source == DOCUMENTS:
        return _replay_documents(batch_id, refused)
    given = Mapping.model_validate_json(commit.parameters["mapping"]) if mapping is None else read_mapping(mapping)
    currency = default_currency or commit.parameters["default_currency"] or None
    return _replay_file(batch_id, refused["transactions"], given, currency)


def _replay_file(batch_id: str, records: dict[str, str], mapping: Mapping, currency: str | None) -> LandingReport:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        path.write_text("".join(f"{record}\n" for record in records.values()), encoding="utf-8")
        return land_mapped(path, mapping, currency, origin=f"replay of {batch_id}", replays=tuple(records))


def _replay_documents(batch_id: str, refused: dict[str, dict[str, str]]) -> LandingReport:
    with document_batch("replay", f"replay of {batch_id}") as batch:
        for name, records in refused.items():
            entity = entities(DOCUMENTS)[name]
            documents = {item: document_of(record) for item, record in records.items()}
            stage(batch, entity, documents.values())
            batch.land(Staged(entity, "staged", replays=tuple(documents)))
        return batch.commit()


def _replayable(pin: Pin, entity: Entity, batch_id: str) -> dict[str, str]:
    """Return the open records of a batch that can be landed again, by quarantine id."""
    items = open_items(pin, entity.source, entity.name)
    if items is None:
        return {}
    with duckdb.connect() as con:
        rows = con.execute(
            f"""
            select quarantine_id, record from ({items})
            where batch_id = $batch_id and not list_contains($unreplayable, rule)
            """,
            {"batch_id": batch_id, "unreplayable": list(UNREPLAYABLE)},
        ).fetchall()
    # A document that the writer refused stands there as its columns: the next landing reads it again from its store.
    return {item: record for item, record in rows if entity.source != DOCUMENTS or is_document(record)}


def _query(query: str, batch_id: str | None) -> list[tuple[Any, ...]]:
    pin = RawZone(settings().raw_zone).pin()
    found = [open_items(pin, source, name) for source in SOURCES for name in entities(source)]
    known = [f"select *, row_number() over () as place from ({items})" for items in found if items is not None]
    if not known:
        return []
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"create temp view open_items as {' union all by name '.join(known)}")
        return con.execute(query, {} if batch_id is None else {"batch_id": batch_id}).fetchall()
