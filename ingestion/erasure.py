"""Erasure of a person: what identifies or describes them leaves every store, and does not come back.

A person is all customers that share one key of the vault. Their money stays: charges, refunds and postings name a
customer id and nothing else of them. Of what describes the person (:data:`ERASABLE`) every landed version is rewritten
to its bare key, and a deletion is landed, so that whoever reads changes hears of it.

An erasure is a batch with sequences of its own. Its checkpoint names the rewritten files and a registry of erased
customers, so both become visible in one step. The landing writer asks the registry: whatever brings such a record
again, a replay, a snapshot or a restored store, lands as a deletion without content. Then the key is destroyed and the
documents are removed. :func:`reapply` does these two again after a restore, or after a kill in between.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pymongo.collection import Collection
from pymongo.database import Database

from ingestion.compaction import Draft, copy, known_files, remove_replaced, still_there, switch, told
from ingestion.contracts import ENVELOPE, Entity, entities
from ingestion.raw_zone import BATCHES, Checkpoint, Commit, EntityCommit, File, Pin, Position, RawZone, emptied, parquet
from ingestion.raw_zone import text_literal as text
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.documents.client import database
from payments.systems.documents.together import remove
from payments.systems.documents.versioned import DOCUMENTS_A_BATCH, batches
from payments.systems.oltp.connection import connect

ERASABLE = {
    "oltp": ("customers", "payment_methods"),
    "documents": ("customer_profiles", "feedback", "recommendations", "sessions"),
}
"""What describes a customer and is no record of money; each has the columns ``merchant_id`` and ``customer_id``."""
REGISTRY = "data/platform/erasures"

Customer = tuple[str, str]
"""A customer: merchant id and customer id."""


@dataclass(frozen=True)
class Erasure:
    """What an erasure did: landed rows and quarantined records rewritten, documents removed, keys destroyed."""

    customers: tuple[Customer, ...]
    rows: int
    quarantined: int
    documents: int
    keys: int


def erase_customer(customer_id: str, merchant_id: str | None = None, reason: str = "erasure") -> Erasure:
    """Erase the person who is this customer, in every store; doing it again finds nothing more to do.

    ``reason`` is a word; it is kept. Raises ``UsageError`` when there is no such customer, when several persons have
    the id and no merchant is given, or when a store cannot be reached.
    """
    customers = _customers_of_person(customer_id, merchant_id)
    rows, quarantined = _erase_landed(customers, reason)
    keys, documents = _erase_stores(customers, reason)
    return Erasure(customers, rows, quarantined, documents, keys)


def reapply() -> Erasure:
    """Destroy keys and remove documents of erased customers that a restore brought back.

    Raises ``UsageError`` when a store cannot be reached.
    """
    zone = RawZone(settings().raw_zone)
    registry = registry_of(zone.pin())
    if registry is None:
        return Erasure((), 0, 0, 0, 0)
    with zone.alone("compaction.lock"):
        remove_replaced(zone)
    with duckdb.connect() as con:
        customers = tuple(
            con.execute(f"select distinct merchant_id, customer_id from {registry} order by all").fetchall()
        )
    keys, documents = _erase_stores(customers, "erasure")
    return Erasure(customers, 0, 0, documents, keys)


def registry_of(pin: Pin) -> str | None:
    """Return the SQL relation of erased customers (``merchant_id``, ``customer_id``), or None when there is none."""
    files = pin.checkpoint.files.get(REGISTRY)
    return parquet(pin.root / file.name for file in files) if files else None


def erased_among(pin: Pin, entity: Entity, relation: str) -> str:
    """Return SQL for the records of a staged relation that belong to erased customers: their ``_ordinal``."""
    registry = registry_of(pin) if entity.name in ERASABLE.get(entity.source, ()) else None
    if registry is None:
        return "select cast(null as bigint) as _ordinal where false"
    return f"select _ordinal from {relation} semi join {registry} as people using (merchant_id, customer_id)"


def _customers_of_person(customer_id: str, merchant_id: str | None) -> tuple[Customer, ...]:
    with connect(autocommit=True) as connection:
        try:
            found = connection.execute(
                """
                select distinct theirs.subject_id, theirs.merchant_id, theirs.customer_id
                from identity.customers as named
                inner join identity.customers as theirs on named.subject_id = theirs.subject_id
                where named.customer_id = %(customer)s and named.merchant_id = coalesce(%(merchant)s, named.merchant_id)
                order by theirs.merchant_id, theirs.customer_id
                """,
                {"customer": customer_id, "merchant": merchant_id},
            ).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
            raise UsageError(
                f"The operational store refuses to tell who it is: {error.diag.message_primary}."
            ) from error
    if not found:
        raise UsageError(f"No customer {customer_id} has an identity in the operational store.")
    if len({row[0] for row in found}) > 1:
        raise UsageError(f"Several persons are {customer_id}: say at which merchant, with --merchant.")
    return tuple((row[1], row[2]) for row in found)


def _erase_stores(customers: tuple[Customer, ...], reason: str) -> tuple[int, int]:
    """Destroy the keys of customers and remove their documents; return how many of each."""
    theirs = {
        "merchants": [merchant for merchant, _ in customers],
        "customers": [customer for _, customer in customers],
    }
    with connect() as connection:
        keys = connection.execute(_DESTROY_KEYS, theirs).rowcount
        tokens = [row[0] for row in connection.execute(_TOKENS, theirs).fetchall()]
    store = database()
    documents = 0
    for name in ERASABLE["documents"]:
        is_keyed = entities("documents")[name].key == ("customer_id",)
        found = _documents_of(store[name], "_id" if is_keyed else "customer_id", customers)
        # A copy that is not there yet, or is gone for now, must not come either.
        copies = [customer for _, customer in customers] if is_keyed else []
        documents += _remove(store, name, {*found, *copies}, reason)
    return keys, documents + _remove(store, "online_features", set(tokens), reason)


def _documents_of(collection: Collection[dict[str, Any]], key: str, customers: tuple[Customer, ...]) -> Iterator[str]:
    for batch in batches(customers, DOCUMENTS_A_BATCH):
        asked = {key: {"$in": [customer for _, customer in batch]}}
        for document in collection.find(asked, {"merchant_id": 1, key: 1}):
            if (document["merchant_id"], document[key]) in batch:
                yield document["_id"]


def _remove(store: Database[dict[str, Any]], name: str, ids: set[str], reason: str) -> int:
    """Remove documents, and leave a tombstone of each id that nothing overrules; one that has both is left alone."""
    removed = 0
    for batch in batches(sorted(ids), DOCUMENTS_A_BATCH):
        stones = store["deletions"].find(
            {"_id": {"$in": [f"{name}/{document_id}" for document_id in batch]}, "version": None}, {"document_id": 1}
        )
        there = store[name].distinct("_id", {"_id": {"$in": batch}})
        removed += remove(name, {*batch} - {stone["document_id"] for stone in stones} | {*there}, reason)
    return removed


_DESTROY_KEYS = """
    update vault.subjects as s
    set wrapped_key = null, erased_at = now()
    from identity.customers as i
    where
        s.subject_id = i.subject_id
        and s.wrapped_key is not null
        and (i.merchant_id, i.customer_id) in (select * from unnest(%(merchants)s::text[], %(customers)s::text[]))
"""

# What the online features of a person and of their cards are kept under.
_TOKENS = """
    with theirs as (
        select * from unnest(%(merchants)s::text[], %(customers)s::text[]) as given (merchant_id, customer_id)
    )
    select 'customer:' || c.network_token from core.customers as c inner join theirs using (merchant_id, customer_id)
    union
    select 'card:' || p.fingerprint from core.payment_methods as p inner join theirs using (merchant_id, customer_id)
"""


def _erase_landed(customers: tuple[Customer, ...], reason: str) -> tuple[int, int]:
    """Rewrite what has landed of customers; return how many rows and quarantined records that were.

    Nothing lands meanwhile. What has the old content goes at once, also what a pinned run still names.
    """
    zone = RawZone(settings().raw_zone)
    with zone.alone("compaction.lock"):
        remove_replaced(zone)
        emptied(zone.root / "compacting")
        with zone.writing() as batch:
            rewriting = _Rewriting(Draft(batch.aside, batch.pin, datetime.now(UTC)), customers)
            checkpoint = rewriting.checkpoint(reason)
            switch(rewriting.draft, checkpoint)
        for gone in checkpoint.replaced:
            if gone.is_erased:
                (zone.root / gone.name).unlink(missing_ok=True)
    return rewriting.rows, rewriting.quarantined


class _Rewriting:
    """The files of an erasure in the making."""

    def __init__(self, draft: Draft, customers: tuple[Customer, ...]) -> None:
        self.draft = draft
        self.pin = draft.pin
        self.sequence = draft.pin.sequence
        self.files = known_files(draft.pin)
        self.rows = 0
        self.quarantined = 0
        self._customers = customers
        self._people = draft.aside / "people.parquet"
        columns = {
            name: [pair[place] for pair in customers] for place, name in enumerate(("merchant_id", "customer_id"))
        }
        pq.write_table(pa.table(columns), self._people)

    def checkpoint(self, reason: str) -> Checkpoint:
        """Write everything aside, and return the checkpoint that names it."""
        commits = [
            commit
            for source in ERASABLE
            if (last := self.pin.last_of(source)) is not None
            and (commit := self._source(source, last, reason)) is not None
        ]
        self.sequence = max(self.sequence, self.pin.sequence + 1)
        self._register(reason)
        batches = self.draft.batches([*self.pin.commits, *commits])
        self.files[BATCHES] = [*self.files.get(BATCHES, []), *batches]
        erased = {f"{folder}/{source}/{name}" for folder in ("data", "quarantine") for source, name in _erasable()}
        return Checkpoint(
            sequence=self.sequence,
            made_at=self.draft.now,
            files={folder: files for folder, files in self.files.items() if files},
            told=told(Pin(self.pin.root, (*self.pin.commits, *commits), self.pin.checkpoint)),
            replaced=[
                file.model_copy(update={"is_erased": file.is_erased or file.name.rsplit("/", 1)[0] in erased})
                for file in (*still_there(self.pin), *self.draft.replaced)
            ],
            rewritten=self.sequence,
        )

    def _source(self, source: str, last: Commit, reason: str) -> Commit | None:
        """Rewrite the rows of one source, and return the batch that deletes them; None when none has landed."""
        self.sequence += 1
        batch_id = f"{source}-{self.sequence:012d}"
        parts = [
            EntityCommit(
                entity=name,
                schema_version=entities(source)[name].schema_version,
                read=0,
                accepted=0,
                unchanged=0,
                quarantined=0,
                deleted=len(keys),
            )
            for name in ERASABLE[source]
            if (keys := self._entity(entities(source)[name], last.reached, batch_id))
        ]
        if not parts:
            self.sequence -= 1
            return None
        return last.model_copy(
            update={
                "sequence": self.sequence,
                "batch_id": batch_id,
                "kind": "erasure",
                "origin": reason,
                "source_at": self.draft.now,
                "landed_at": self.draft.now,
                "entities": parts,
            }
        )

    def _entity(self, entity: Entity, reached: Position, batch_id: str) -> list[str]:
        """Rewrite an entity's files, and land a deletion of each key found; return the keys."""
        folder = f"data/{entity.source}/{entity.name}"
        files = self.files.get(folder, [])
        keys = self._keys(files)
        if keys:
            self.files[folder] = [self._without(folder, file, entity, keys) for file in files]
            self.files[folder].append(self._deletions(folder, entity, keys, reached, batch_id))
        self._quarantine(entity, keys)
        return keys

    def _keys(self, files: list[File]) -> list[str]:
        paths = [self.pin.root / file.name for file in files]
        if not paths:
            return []
        with duckdb.connect() as con:
            query = f"""
                select distinct landed._key
                from {parquet(paths)} as landed
                semi join {parquet([self._people])} as people using (merchant_id, customer_id)
            """
            return sorted(row[0] for row in con.execute(query).fetchall())

    def _without(self, folder: str, file: File, entity: Entity, keys: list[str]) -> File:
        """Return the file with the rows of keys rewritten to their keys, or as it is when it has none."""
        path = self.pin.root / file.name
        is_theirs = f"_key in ({', '.join(map(text, keys))})"
        with duckdb.connect() as con:
            row = con.execute(f"select count(*) from {parquet([path])} where {is_theirs}").fetchone()
            types = {name: kind for name, kind, *_ in con.execute(f"describe from {parquet([path])}").fetchall()}
        if row is None or not row[0]:
            return file
        self.rows += row[0]
        kept = {*entity.key, *(column.name for column in ENVELOPE)} - {"_before", "_unchanged_columns"}
        blank = {name: f"cast(null as {kind})" for name, kind in types.items() if name not in kept}
        blank |= {"_op": "'d'", "_content_hash": "md5('')"}
        columns = ", ".join(
            f'case when {is_theirs} then {blank[name]} else "{name}" end as "{name}"' if name in blank else f'"{name}"'
            for name in types
        )
        return self._rewritten(folder, file, f"select {columns} from {parquet([path])}")

    def _rewritten(self, folder: str, file: File, rows: str) -> File:
        # The range of a file that replaces one of the same range is told apart by the erasure.
        name = f"{folder}/{file.highest:012d}-{file.lowest:012d}-{self.sequence:012d}.parquet"
        copy(rows, self.draft.new(name), self.draft.aside)
        self.draft.replace(file, is_erased=True)
        return self.draft.file(name, repeats_keys=file.repeats_keys)

    def _deletions(self, folder: str, entity: Entity, keys: list[str], reached: Position, batch_id: str) -> File:
        """Land a deletion of each key, after all that its source has told."""
        place = Position(reached.epoch, reached.commit_lsn, 0, 0).prefix
        paths = [self.pin.root / file.name for file in known_files(self.pin)[folder]]
        with duckdb.connect() as con:
            query = f"select max(_position) from {parquet(paths)} where starts_with(_position, {text(place)})"
            found = con.execute(query).fetchone()
        first = Position.parse(found[0]).n + 1 if found and found[0] else 0
        rows: list[dict[str, Any]] = [
            {
                **dict(zip(entity.key, json.loads(key), strict=True)),
                "_op": "d",
                "_key": key,
                "_position": f"{place}{first + number:08x}",
                "_source_at": self.draft.now,
                "_schema_version": entity.schema_version,
                "_content_hash": "d41d8cd98f00b204e9800998ecf8427e",  # of nothing, as of every deletion
                "_batch_id": batch_id,
                "_sequence": self.sequence,
            }
            for number, key in enumerate(keys)
        ]
        return self._file(f"{folder}/{self.sequence:012d}-{self.sequence:012d}.parquet", rows)

    def _quarantine(self, entity: Entity, keys: list[str]) -> None:
        """Blank the refused records that name a customer or one of their keys, and settle them."""
        folder = f"quarantine/{entity.source}/{entity.name}"
        ids = {customer for _, customer in self._customers} | {json.loads(key)[-1] for key in keys}
        names = rf"(^|[^0-9A-Za-z_])({'|'.join(re.escape(found) for found in sorted(ids))})([^0-9A-Za-z_]|$)"
        is_theirs = f"record <> '{{}}' and regexp_matches(concat_ws(' ', record, reason), {text(names)})"
        settled: list[dict[str, Any]] = []
        after = []
        for file in self.files.get(folder, []):
            rows = parquet([self.pin.root / file.name])
            with duckdb.connect() as con:
                query = f"select md5(concat_ws(chr(31), batch_id, rule, '{{}}')) from {rows} where {is_theirs}"
                found = [{"quarantine_id": row[0]} for row in con.execute(query).fetchall()]
            settled += found
            blank = f"case when {is_theirs} then '{{}}' else record end as record, "
            blank += f"case when {is_theirs} then 'erased' else reason end as reason"
            after.append(self._rewritten(folder, file, f"select * replace ({blank}) from {rows}") if found else file)
        if settled:
            self.quarantined += len(settled)
            self.files[folder] = after
            resolved = f"resolved/{entity.source}/{entity.name}"
            name = f"{resolved}/{self.sequence:012d}-{self.sequence:012d}.parquet"
            self.files[resolved] = [*self.files.get(resolved, []), self._file(name, settled)]

    def _register(self, reason: str) -> None:
        rows = [
            {"merchant_id": merchant, "customer_id": customer, "reason": reason, "erased_at": self.draft.now}
            for merchant, customer in self._customers
        ]
        name = f"{REGISTRY}/{self.sequence:012d}-{self.sequence:012d}.parquet"
        self.files[REGISTRY] = [*self.files.get(REGISTRY, []), self._file(name, rows)]

    def _file(self, name: str, rows: list[dict[str, Any]]) -> File:
        pq.write_table(pa.Table.from_pylist(rows), self.draft.new(name), compression="zstd")
        return self.draft.file(name, repeats_keys=True)


def _erasable() -> list[tuple[str, str]]:
    return [(source, name) for source, names in ERASABLE.items() for name in names]
