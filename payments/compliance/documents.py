"""The document store beside the raw zone: every document that landed is there, and every one that is due has landed.

There is no snapshot over collections. So what was written, removed or has expired since a collection was last landed is
told apart by its own marks (``written_at``, tombstone, ``expire_at``) and left out: it is late, and no difference.
Documents are compared by id, and what customers spent by amount: what their profiles say of it must be what landed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import duckdb
import pyarrow as pa
from pymongo.collection import Collection

from ingestion.cdc.copies import CONSUMER
from ingestion.contracts import Column, Entity, entities
from ingestion.document_changes import OVERLAP, Document, tombstones
from ingestion.landing import open_items
from ingestion.raw_zone import Pin, relation, text_literal
from payments.compliance.built import CAPTURED
from payments.compliance.content import Content
from payments.compliance.readings import KEYS_NAMED, Comparison, compared, latest, read
from payments.systems.documents.client import database
from payments.systems.documents.versioned import DOCUMENTS_A_BATCH

SOURCE = "documents"


@dataclass(frozen=True)
class Copy:
    """A collection of which each document belongs to a relational row: the entity, and its column that is the id.

    ``is_whole``: once the copies are kept current, every row has a document.
    """

    collection: str
    entity: str
    column: str
    is_whole: bool


COPIES = (
    Copy("customer_profiles", "customers", "customer_id", is_whole=True),
    Copy("merchant_risk", "merchants", "merchant_id", is_whole=True),
    Copy("fraud_decisions", "charges", "charge_id", is_whole=False),
)


SPENT = Entity(
    "copies",
    "customer_profiles",
    ("customer_id", "currency"),
    (
        *(Column(name, "text") for name in ("customer_id", "currency")),
        *(Column(name, "bigint") for name in (CAPTURED, "payment_count")),
    ),
)
"""What a customer spent in a currency, as its profile says."""


def documents_compared(con: duckdb.DuckDBPyConnection, pin: Pin) -> tuple[list[Comparison], list[str]]:
    """Compare every collection that has landed, and the copies of relational rows; notes say what is late.

    Raises ``UsageError`` when the store cannot be reached.
    """
    if pin.last_of(SOURCE) is None:
        return [], ["no document has landed, so the document store is not compared"]
    store = database()
    found: list[Comparison] = []
    notes: list[str] = []
    for name, entity in entities(SOURCE).items():
        landing = pin.last_of(SOURCE, f"progress of {name}")
        if landing is None:
            continue
        con.execute(f"create or replace temp table documents as {_standing(con, pin, entity)}")
        landed = _count(con, "documents")
        stored, written_at = _seen(store[name])
        # Ids are read only where the numbers differ, or may hide that as many were written as are gone.
        if landed == stored and (written_at is None or written_at < landing.source_at):
            contents = {"raw zone": Content(landed), "document store": Content(stored)}
            found.append(Comparison(f"{SOURCE}.{name}", contents))
            continue
        _load_ids(con, store[name], landing.source_at - OVERLAP)
        found.append(_by_id(con, pin, entity, store[name]))
        if late := _count(con, "late"):
            notes.append(f"{SOURCE}.{name}: {late} documents changed since they were landed (payments land documents)")
    copied = copies_reached()
    last = pin.last_of("oltp")
    if last is not None:
        found += [_owned(con, pin, copy, store[copy.collection], copied) for copy in COPIES]
        if copied is not None and copied < last.sequence:
            notes.append(f"copies are compared as of landing {copied}, which they had reached")
    return found, notes


def _seen(collection: Collection[Document]) -> tuple[int, datetime | None]:
    """Return how many documents a collection has and when the last was written, in one pass."""
    measures = {"_id": None, "documents": {"$sum": 1}, "written_at": {"$max": "$written_at"}}
    found = next(collection.aggregate([{"$group": measures}]), None)
    return (0, None) if found is None else (int(found["documents"]), found["written_at"])


def _standing(con: duckdb.DuckDBPyConnection, pin: Pin, entity: Entity) -> str:
    """Return SQL for id and end of the documents that have landed and are not gone."""
    expire_at = "expire_at" if "expire_at" in entity.column_names else "cast(null as timestamptz)"
    return f"""
        select "{entity.key[0]}" as id, {expire_at} as expire_at
        from ({latest(con, pin, entity, "true")})
        where _op <> 'x'
    """


def _load_ids(con: duckdb.DuckDBPyConnection, collection: Collection[Document], since: datetime) -> None:
    """Fill ``stored`` with the ids of a collection, and whether each was written since a moment."""
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
        select documents.id is null as is_stored, coalesce(documents.id, stored.id) as id
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
    unlanded = _count(con, "differing where is_stored")
    lost = _count(con, "differing where not is_stored")
    # As many lost as not landed would be equal rows: the checksum says otherwise.
    contents = {
        "raw zone": Content(landed + lost, lost),
        "document store": Content(stored + unlanded, -unlanded),
    }
    return Comparison(f"{SOURCE}.{entity.name}", contents, _first(con, "only in document store", "only in raw zone"))


def _owned(
    con: duckdb.DuckDBPyConnection, pin: Pin, copy: Copy, collection: Collection[Document], copied: int | None
) -> Comparison:
    """Compare the ids of copies with the rows that they belong to, as of the landing that the copies have reached.

    A copy may be newer than that. So only what is right neither then nor now is wrong.
    """
    owners = entities("oltp")[copy.entity]
    _load_ids(con, collection, datetime.now(UTC))
    for name, condition in (("then", "true" if copied is None else f"_sequence <= {copied}"), ("now", "true")):
        rows = latest(con, pin, owners, condition)
        con.execute(f"create or replace temp table owners_{name} as select {copy.column} as id from ({rows})")
    is_expected = str(copy.is_whole and copied is not None)
    con.execute(
        f"""
        create or replace temp table differing as
        select id, true as is_stored
        from stored
        where id not in (select id from owners_then union all select id from owners_now)
        union all
        select id, false as is_stored
        from owners_then
        semi join owners_now using (id)
        anti join stored using (id)
        where {is_expected}
        """
    )
    stored, ownerless = _count(con, "stored"), _count(con, "differing where is_stored")
    missing = _count(con, "differing where not is_stored")
    # As many missing as ownerless would be equal rows: the checksum says otherwise.
    contents = {
        copy.entity: Content(stored - ownerless + missing, missing),
        "document store": Content(stored, -ownerless),
    }
    return Comparison(
        f"copies.{copy.collection}", contents, _first(con, f"without its row in {copy.entity}", "without a copy")
    )


def copies_reached() -> int | None:
    """Return the landing that the copies show at least; None when they were never kept current."""
    progress = database()["copy_progress"].find_one({"_id": CONSUMER})
    return None if progress is None else int(progress["sequence"])


def load_spent(con: duckdb.DuckDBPyConnection) -> None:
    """Fill a table ``spent`` of the session with what the profiles say that customers spent."""
    profiles = database()["customer_profiles"]
    names = [f"{column.name} {column.type}" for column in SPENT.columns]
    con.execute(f"create or replace temp table spent ({', '.join(names)})")
    documents = profiles.find({"spent": {"$ne": []}}, {"spent": 1}, batch_size=DOCUMENTS_A_BATCH)
    while batch := list(islice(documents, DOCUMENTS_A_BATCH)):
        said = [(found["_id"], entry) for found in batch for entry in found["spent"]]
        columns = {
            "id": [customer for customer, _ in said],
            **{name: [entry[name] for _, entry in said] for name in ("currency", "amount_minor", "payment_count")},
        }
        con.register("incoming", pa.table(columns))
        con.execute("insert into spent from incoming")
        con.unregister("incoming")


def spent_compared(con: duckdb.DuckDBPyConnection, pin: Pin, copied: int) -> Comparison:
    """Compare ``spent`` with the charges of a raw zone that has everything committed before the profiles were read.

    A profile shows at least the landing ``copied`` that the copies had reached before that, perhaps more: customers
    touched since are left out. So is who is gone: of an erased customer the charges stay.
    """
    charges, customers = (entities("oltp")[name] for name in ("charges", "customers"))
    touched = " union all ".join(
        f"select customer_id from ({rows}) where _key in (select _key from ({rows}) where _sequence > {copied})"
        for rows in (relation(con, owner, pin.files("oltp", owner.name)) for owner in (charges, customers))
    )
    is_settled = f"""
        customer_id in (select customer_id from ({latest(con, pin, customers, "true")}))
        and customer_id not in (select customer_id from ({touched}) where customer_id is not null)
    """
    landed = f"""
        (
            select customer_id, currency, sum({CAPTURED})::bigint as {CAPTURED}, count(*) as payment_count
            from ({latest(con, pin, charges, "true")})
            where status = 'succeeded' and {is_settled}
            group by customer_id, currency
        )
    """
    said = f"(select * from spent where {is_settled})"
    return compared(
        con,
        "copies.customer_profiles.spent",
        read(con, SPENT, "raw zone", landed),
        read(con, SPENT, "document store", said),
    )


def _first(con: duckdb.DuckDBPyConnection, one: str, other: str) -> tuple[str, ...]:
    """Return what is wrong with the first ids of ``differing``: of those in the store, of the others."""
    rows = con.execute(
        f"""
        select case when is_stored then '{one}' else '{other}' end || ': ' || id
        from differing
        order by id
        limit {KEYS_NAMED}
        """
    ).fetchall()
    return tuple(row[0] for row in rows)


def _count(con: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(con.execute(f"select count(*) from {rows}").fetchall()[0][0])
