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
from ingestion.inbox.store import COLLECTION as INBOX
from ingestion.inbox.store import drop_refused, read_again
from ingestion.landing import LandingReport, Staged, open_items
from ingestion.mapping import Mapping, read_mapping
from ingestion.raw_zone import Pin, RawZone
from payments.errors import UsageError
from payments.settings import settings

SOURCES = ("oltp", "documents", "files", "stream")
UNREPLAYABLE = ("card_number", "broken_row", "broken_json", "foreign_message")
"""Rules whose records cannot be landed again from quarantine: digits were removed, or the text is no record."""

_COLUMNS = "quarantine_id, source, entity, rule, reason, record, origin, quarantined_at, batch_id, sequence"


@dataclass(frozen=True)
class QuarantinedRecord:
    """A record in quarantine that is not settled; ``record`` is its text, card digits removed.

    ``quarantine_id`` is a digest of batch, rule and record: equal records of one batch share it.
    """

    quarantine_id: str
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


def list_quarantine(
    batch_id: str | None = None,
    limit: int | None = None,
    *,
    source: str | None = None,
    entity: str | None = None,
    rule: str | None = None,
) -> list[QuarantinedRecord]:
    """Return the open records, oldest batch first; a record leaves when it was replayed or its source was mended."""
    wanted = {"batch_id": batch_id, "source": source, "entity": entity, "rule": rule}
    given = {name: value for name, value in wanted.items() if value is not None}
    rows = _query(
        f"""
        select {_COLUMNS}
        from open_items
        {_where(given)}
        order by sequence, source, entity, place
        {"" if limit is None else f"limit {int(limit)}"}
        """,
        given,
    )
    return [QuarantinedRecord(*row) for row in rows]


def show_quarantine(quarantine_id: str) -> QuarantinedRecord:
    """Return the open record with this id, or whose id begins so.

    Raises:
        UsageError: no open record has the id, or several do.
    """
    rows = _query(
        f"""
        select distinct {_COLUMNS}
        from open_items
        where starts_with(quarantine_id, $quarantine_id)
        order by quarantine_id
        limit 2
        """,
        {"quarantine_id": quarantine_id.lower()},
    )
    found = [QuarantinedRecord(*row) for row in rows]
    if not found or not quarantine_id:
        raise UsageError(f"No open record has the id {quarantine_id!r}: see payments quarantine list.")
    if len({record.quarantine_id for record in found}) > 1:
        raise UsageError(f"Several records have an id that begins with {quarantine_id}: give more of it.")
    return found[0]


def count_quarantine() -> list[QuarantineCount]:
    """Return the number of open records by batch, entity and rule, oldest batch first."""
    rows = _query(
        """
        select batch_id, source, entity, rule, count(*)
        from open_items
        group by sequence, batch_id, source, entity, rule
        order by sequence, batch_id, source, entity, rule
        """,
        {},
    )
    return [QuarantineCount(*row) for row in rows]


def replay(batch_id: str, mapping: Path | None = None, default_currency: str | None = None) -> LandingReport:
    """Land the open records of a batch again, through the same writer and rules, and settle those that now fit.

    Records of a file take the mapping and default currency that their batch had, unless others are given. Records whose
    card digits were removed and lines that are no record stay: land a mended file instead. Rows of the operational
    store are read again by its next landing. Webhooks that the inbox refused are read again from their encrypted
    originals. Raises ``UsageError`` when nothing can be replayed.
    """
    pin = RawZone(settings().raw_zone).pin()
    found = [commit for source in SOURCES for commit in pin.batches(source, batch_id=batch_id)]
    if not found:
        raise UsageError(f"No batch {batch_id} has landed: see payments quarantine list.")
    (commit,) = found
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
    reread: list[str] = []
    with document_batch("replay", f"replay of {batch_id}") as batch:
        for name, records in refused.items():
            entity = entities(DOCUMENTS)[name]
            documents = {item: document_of(record) for item, record in records.items()}
            if name == INBOX:
                events = {item: read_again(document["_id"]) for item, document in documents.items()}
                reread += [documents[item]["_id"] for item, event in events.items() if event is not None]
                documents = {item: events[item] or document for item, document in documents.items()}
            stage(batch, entity, documents.values())
            batch.land(Staged(entity, "staged", replays=tuple(documents)))
        report = batch.commit()
    if reread:
        drop_refused(reread)
    return report


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


def _where(given: dict[str, str]) -> str:
    """Return a condition on the columns that something is given for; the values are parameters of the same name."""
    return f"where {' and '.join(f'{name} = ${name}' for name in given)}" if given else ""


def _query(query: str, parameters: dict[str, str]) -> list[tuple[Any, ...]]:
    pin = RawZone(settings().raw_zone).pin()
    found = [open_items(pin, source, name) for source in SOURCES for name in entities(source)]
    known = [f"select *, row_number() over () as place from ({items})" for items in found if items is not None]
    if not known:
        return []
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"create temp view open_items as {' union all by name '.join(known)}")
        return con.execute(query, parameters).fetchall()
