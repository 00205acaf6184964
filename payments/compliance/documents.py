"""The document store beside the raw zone: every document that landed is there, and every one that is due has landed.

There is no snapshot over collections. So what was written, removed or has expired since a collection was last landed is
told apart by its own marks (``written_at``, tombstone, ``expire_at``) and left out: it is late, and no difference.
Documents are compared by id.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
from pymongo.collection import Collection

from ingestion.contracts import Entity, entities
from ingestion.document_changes import OVERLAP, Document, tombstones
from ingestion.landing import open_items
from ingestion.raw_zone import Commit, Pin, text_literal
from payments.compliance.content import Content
from payments.compliance.readings import KEYS_NAMED, Comparison, latest
from payments.systems.documents.client import database
from payments.systems.documents.versioned import DOCUMENTS_A_BATCH, batches

SOURCE = "documents"


@dataclass(frozen=True)
class Copy:
    """A collection whose documents each belong to a relational row: its entity, and its key in their columns."""

    collection: str
    entity: str
    key: tuple[str, str]


COPIES = (
    Copy("customer_profiles", "customers", ("merchant_id", "customer_id")),
    Copy("fraud_decisions", "charges", ("merchant_id", "charge_id")),
)


def documents_compared(con: duckdb.DuckDBPyConnection, pin: Pin) -> tuple[list[Comparison], list[str]]:
    """Compare every collection that has landed; return notes as well: what is late. Raises ``UsageError``."""
    landings = {name: found for name in entities(SOURCE) if (found := _landed(pin, name)) is not None}
    if not landings:
        return [], ["no document has landed, so the document store is not compared"]
    store = database()
    compared: list[Comparison] = []
    notes: list[str] = []
    for name, landing in landings.items():
        entity = entities(SOURCE)[name]
        con.execute(f"create or replace temp table documents as {_standing(con, pin, entity)}")
        landed = _count(con, "documents")
        # Ids are read only where the numbers differ, or hide that as many were written as are gone.
        if (
            landed
            == store[name].count_documents({})
            == store[name].count_documents({"written_at": {"$lt": landing.source_at}})
        ):
            contents = {"raw zone": Content(landed), "document store": Content(landed)}
            compared.append(Comparison(f"{SOURCE}.{name}", contents))
            continue
        _load_ids(con, store[name], landing)
        compared.append(_by_id(con, pin, entity, store[name]))
        if late := _count(con, "late"):
            notes.append(f"{SOURCE}.{name}: {late} documents changed since they were landed (payments land documents)")
    compared += [_owned(con, pin, copy, store[copy.collection]) for copy in COPIES if copy.collection in landings]
    return compared, notes


def _landed(pin: Pin, collection: str) -> Commit | None:
    """Return the newest batch that read a collection."""
    return next((commit for commit in reversed(pin.commits) if f"progress of {collection}" in commit.parameters), None)


def _standing(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity) -> str:
    """Return SQL for id and end of the documents that have landed and are not gone."""
    expire_at = "expire_at" if "expire_at" in entity.column_names else "cast(null as timestamptz)"
    return f"""
        select "{entity.key[0]}" as id, {expire_at} as expire_at
        from ({latest(con, pin, entity, "true")})
        where _op <> 'x'
    """


def _load_ids(con: duckdb.DuckDBPyConnection, collection: Collection[Document], landing: Commit) -> None:
    """Fill ``stored`` with the ids of a collection, and whether each was written since it was landed."""
    since = landing.source_at - OVERLAP
    con.execute("create or replace temp table stored (id varchar, is_new boolean)")
    for ids, news in _batches(collection, since):
        con.register("incoming", pa.table({"id": pa.array(ids, pa.string()), "is_new": pa.array(news, pa.bool_())}))
        con.execute("insert into stored select id, is_new from incoming")
        con.unregister("incoming")


def _batches(collection: Collection[Document], since: datetime) -> Iterator[tuple[list[str], list[bool]]]:
    ids: list[str] = []
    news: list[bool] = []
    for document in collection.find({}, {"written_at": 1}, batch_size=DOCUMENTS_A_BATCH):
        ids.append(str(document["_id"]))
        written_at = document.get("written_at")
        news.append(isinstance(written_at, datetime) and written_at >= since)
        if len(ids) == DOCUMENTS_A_BATCH:
            yield ids, news
            ids, news = [], []
    yield ids, news


def _by_id(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity, collection: Collection[Document]) -> Comparison:
    """Compare ``documents`` and ``stored`` by id, without what is ``late`` or stands in quarantine."""
    gone = pa.table({"id": pa.array(sorted(tombstones(collection)), pa.string())})
    con.register("gone", gone)
    refused = open_items(pin, SOURCE, entity.name)
    refusals = (
        "select '' as id where false"
        if refused is None
        else f"select json_extract_string(record, '$._id') as id from ({refused}) where json_valid(record)"
    )
    now = text_literal(datetime.now(UTC).isoformat())
    con.execute(
        f"""
        create or replace temp table late as
        select id from stored anti join documents using (id) where is_new
        union all
        select id
        from documents
        anti join stored using (id)
        where expire_at <= {now}::timestamptz or id in (select id from gone)
        """
    )
    left_out = f"(select id from late union all {refusals})"
    con.execute(
        f"""
        create or replace temp table differing as
        select documents.id is null as is_unlanded, coalesce(documents.id, stored.id) as id
        from documents
        full join stored on documents.id = stored.id
        where
            (documents.id is null or stored.id is null)
            and coalesce(documents.id, stored.id) not in (select id from {left_out} where id is not null)
        """
    )
    con.unregister("gone")
    landed, stored = (
        int(con.execute(f"select count(*) from {one} semi join {other} using (id)").fetchall()[0][0])
        for one, other in (("documents", "stored"), ("stored", "documents"))
    )
    unlanded = _count(con, "differing where is_unlanded")
    lost = _count(con, "differing where not is_unlanded")
    first = con.execute(
        f"""
        select case when is_unlanded then 'only in document store: ' else 'only in raw zone: ' end || id
        from differing
        order by id
        limit {KEYS_NAMED}
        """
    ).fetchall()
    # As many lost as not landed would be equal rows: the checksum says otherwise.
    contents = {
        "raw zone": Content(landed + lost, lost),
        "document store": Content(stored + unlanded, -unlanded),
    }
    return Comparison(f"{SOURCE}.{entity.name}", contents, tuple(row[0] for row in first))


def _owned(con: duckdb.DuckDBPyConnection, pin: Pin, copy: Copy, collection: Collection[Document]) -> Comparison:
    """Compare the documents of a collection with those among them whose relational row has landed and is not gone."""
    owners, entity = entities("oltp")[copy.entity], entities(SOURCE)[copy.collection]
    key = ", ".join(copy.key)
    con.execute(
        f"""
        create or replace temp table ownerless as
        select "{entity.key[0]}" as id
        from ({latest(con, pin, entity, "true")}) as documents
        anti join ({latest(con, pin, owners, "true")}) as owners using ({key})
        where documents._op <> 'x'
        """
    )
    suspects = [row[0] for row in con.execute("select id from ownerless order by id").fetchall()]
    # What is gone from the store as well only waits to be landed.
    ownerless = [
        str(document["_id"])
        for batch in batches(suspects, DOCUMENTS_A_BATCH)
        for document in collection.find({"_id": {"$in": batch}}, {"_id": 1}).sort("_id", 1)
    ]
    stored = collection.count_documents({})
    contents = {"raw zone": Content(stored - len(ownerless)), "document store": Content(stored)}
    first = tuple(f"without its row in {copy.entity}: {found}" for found in ownerless[:KEYS_NAMED])
    return Comparison(f"copies.{copy.collection}", contents, first)


def _count(con: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(con.execute(f"select count(*) from {rows}").fetchall()[0][0])
