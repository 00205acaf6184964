"""Copies of relational rows in the document store, kept current behind the raw zone: profiles, risk, online features.

The raw zone says what changed and in which order; what the customers, merchants and cards that changed look like now
is asked of the operational store, by index. The raw zone is pinned first, so the answer is at least as new as the
changes that led to the question, and a later change leads to a later question. So an answer may be newer than its
version, never older, and when all has landed and was copied, every copy is what the operational store says.

**Versions.** The version of a copy is the landing sequence of the last change of its entity, above the number of the
generation: ``generation * 10**9 + sequence``. It follows from what landed, so that a batch that comes again changes
nothing, however it is cut. Sequences grow for as long as a raw zone lives, over snapshots, failovers and restores of
the operational store; the generation grows when the raw zone is another one or went back. No generation is 0: documents
that a simulation wrote in bulk have versions of a few digits and give way to the first copy.

**Progress** (collection ``copy_progress``) is written after the documents that it covers: a crash repeats work and
skips none. A store that is down, or refuses a document, does not hold up the landing: the next call goes on.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import duckdb
import psycopg
from pymongo.errors import PyMongoError, WriteError

from ingestion.cdc.copied_state import (
    Copied,
    CustomerKey,
    Document,
    customer_profiles,
    merchant_risk,
    online_features,
    prepare_connection,
    tokens_of_charges,
    tokens_of_customers,
)
from ingestion.contracts import entities
from ingestion.oltp import SOURCE
from ingestion.raw_zone import Commit, Pin, RawZone, relation
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.documents.conflicts import conflict, keep_losers
from payments.systems.documents.versioned import Outcome, Store, delete_copies, durable, upsert, upsert_many
from payments.systems.oltp.connection import connect

CONSUMER = "copies"
OWNER = "the operational store"
GENERATION = 10**9
"""The versions of one generation: more batches than a raw zone sees in ten years at three a second."""
ENTITIES_A_BATCH = 1_000
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

_Key = TypeVar("_Key")


@dataclass
class CopyReport:
    """What a call did.

    Documents ``written``; writes that changed nothing because they were ``stale``, ``repeated`` or of a document that
    was ``removed`` on request; copies ``deleted`` because their original is gone; ``refused`` by a validator.
    ``sequence`` is the landing sequence up to which the copies are current, ``lag_seconds`` the age of the oldest batch
    that they do not show yet (0 when they show all), None when the document store cannot say. ``failure`` is why the
    call ended early.
    """

    written: int = 0
    stale: int = 0
    repeated: int = 0
    removed: int = 0
    deleted: int = 0
    refused: int = 0
    sequence: int = 0
    lag_seconds: float | None = 0.0
    failure: str | None = None


@dataclass(frozen=True)
class _Progress:
    """How far the copies are; ``batch_id`` and ``landed_at`` are of the last batch with rows that they cover."""

    generation: int = 1
    sequence: int = 0
    batch_id: str | None = None
    landed_at: datetime | None = None


@dataclass
class _Touched:
    """The entities that batches changed, each with the sequence of its last change."""

    customers: dict[CustomerKey, int] = field(default_factory=dict)
    charges: dict[CustomerKey, int] = field(default_factory=dict)
    merchants: dict[str, int] = field(default_factory=dict)
    persons: dict[str, int] = field(default_factory=dict)
    """Network tokens of customers that are gone: the operational store does not know them any more."""


def advance_copies() -> CopyReport:
    """Bring every copy up to what has landed by now.

    A store that cannot be reached is no error here: the report tells, and the next call goes on where this one ended.
    """
    report = CopyReport(lag_seconds=None)
    pin = RawZone(settings().raw_zone).pin()
    try:
        store = durable()
        progress = _read_progress(store, pin)
        report.sequence = progress.sequence
        report.lag_seconds = _lag(pin, progress)
        _advance(store, pin, progress, report)
    except (PyMongoError, psycopg.OperationalError, UsageError) as error:
        report.failure = str(error).strip().splitlines()[0]
    return report


def _advance(store: Store, pin: Pin, progress: _Progress, report: CopyReport) -> None:
    last = pin.last_of(SOURCE)
    if last is None or progress.sequence >= last.sequence:
        return
    touched = _touched(pin, progress.sequence)
    copies = _Copies(store, progress.generation * GENERATION, last, report)
    with _asking() as connection:
        copies.follow(connection, touched)
    _write_progress(store, _reached(pin, last, progress))
    report.sequence, report.lag_seconds = last.sequence, 0.0


@dataclass
class _Copies:
    """The writing side of one call: versions above ``base``, windows that end when the last batch was committed."""

    store: Store
    base: int
    last: Commit
    report: CopyReport

    def follow(self, connection: psycopg.Connection, touched: _Touched) -> None:
        """Write the copies of all that was touched, and of what a window lost or won as time went on."""
        as_of = self.last.source_at
        # A union of two counters takes the larger number: the later change.
        persons, cards = Counter(touched.persons), Counter[str]()
        for customers in _parts(touched.customers):
            self._copy("customer_profiles", customer_profiles(connection, self._versions(customers)))
            persons |= Counter(tokens_of_customers(connection, customers))
        for charges in _parts(touched.charges):
            found, fingerprints = tokens_of_charges(connection, charges)
            persons |= Counter(found)
            cards |= Counter(fingerprints)
        merchants = Counter(touched.merchants)
        for part in _parts(self._due("merchant_risk") | merchants):
            self._copy("merchant_risk", merchant_risk(connection, self._versions(part), as_of))
        due = self._due("online_features")
        for kind, changed in (("customer", persons), ("card", cards), ("merchant", merchants)):
            ids = Counter(
                {document_id: each for document_id, each in due.items() if document_id.startswith(f"{kind}:")}
            )
            ids |= Counter({f"{kind}:{entity}": each for entity, each in changed.items()})
            for part in _parts(ids):
                asked = {document_id.partition(":")[2]: each for document_id, each in self._versions(part).items()}
                self._copy("online_features", online_features(connection, kind, asked, as_of))

    def _due(self, collection: str) -> Counter[str]:
        """Return the ids of documents whose windows have moved although nobody changed them: as of the last batch."""
        # A range with both ends: the embedded server reads every document without a moment for one that is open below.
        moved = {"refresh_at": {"$gt": _LONG_AGO, "$lte": self.last.source_at}}
        found = self.store[collection].find(moved, {"_id": 1})
        return Counter({document["_id"]: self.last.sequence for document in found})

    def _versions(self, sequences: Mapping[_Key, int]) -> dict[_Key, int]:
        return {key: self.base + sequence for key, sequence in sequences.items()}

    def _copy(self, collection: str, copied: Copied) -> None:
        outcomes = self._upsert(collection, copied.documents)
        gone = delete_copies(collection, copied.gone, "gone") if copied.gone else Counter[Outcome]()
        report = self.report
        report.written += outcomes[Outcome.WRITTEN]
        report.deleted += gone[Outcome.WRITTEN]
        report.stale += outcomes[Outcome.STALE] + gone[Outcome.STALE]
        report.repeated += outcomes[Outcome.REPEATED] + gone[Outcome.REPEATED]
        report.removed += outcomes[Outcome.REMOVED] + gone[Outcome.REMOVED]
        if outcomes[Outcome.STALE]:
            self._keep_overtaken(collection, copied.documents)

    def _upsert(self, collection: str, documents: list[Document]) -> Counter[Outcome]:
        try:
            return upsert_many(collection, documents)
        except WriteError:
            # One that the validator refuses must not hold up the others: each by itself, in full view.
            outcomes: Counter[Outcome] = Counter()
            for document in documents:
                try:
                    outcomes[upsert(collection, document)] += 1
                except WriteError:
                    self._keep_refused(collection, document)
            return outcomes

    def _keep_refused(self, collection: str, document: Document) -> None:
        self.report.refused += 1
        place = collection, document["_id"], "version"
        keep_losers(self.store, [conflict(place, "refused", (OWNER, document["version"]), (None, None))])

    def _keep_overtaken(self, collection: str, documents: list[Document]) -> None:
        """Keep the copies that lost against a version beyond all that has landed: someone else's, not the log's."""
        highest = self.base + RawZone(settings().raw_zone).pin().sequence
        ours = {document["_id"]: (OWNER, document["version"]) for document in documents}
        beyond = {"_id": {"$in": list(ours)}, "version": {"$gt": highest}}
        keep_losers(
            self.store,
            [
                conflict((collection, found["_id"], "version"), "ahead", ours[found["_id"]], (None, found["version"]))
                for found in self.store[collection].find(beyond, {"version": 1})
            ],
        )


def _touched(pin: Pin, after: int) -> _Touched:
    """Return what landed after a sequence, of the entities that have copies."""
    touched = _Touched()
    with duckdb.connect() as con:
        customers = _landed(con, pin, "customers", "merchant_id, customer_id, network_token", after)
        charges = _landed(con, pin, "charges", "merchant_id, customer_id, charge_id", after)
        for merchant_id, customer_id, token, sequence, op in customers:
            touched.customers[merchant_id, customer_id] = sequence
            if op == "d" and token is not None:
                touched.persons[token] = max(sequence, touched.persons.get(token, 0))
        for merchant_id, customer_id, charge_id, sequence, _ in charges:
            touched.charges[merchant_id, charge_id] = sequence
            _raise(touched.merchants, merchant_id, sequence)
            if customer_id is not None:
                _raise(touched.customers, (merchant_id, customer_id), sequence)
        for entity in ("disputes", "refunds", "early_fraud_warnings"):
            for merchant_id, charge_id, sequence, _ in _landed(con, pin, entity, "merchant_id, charge_id", after):
                _raise(touched.merchants, merchant_id, sequence)
                if entity == "disputes" and charge_id is not None:
                    _raise(touched.charges, (merchant_id, charge_id), sequence)
        for merchant_id, sequence, _ in _landed(con, pin, "merchants", "merchant_id", after):
            _raise(touched.merchants, merchant_id, sequence)
    return touched


def _raise(sequences: dict[_Key, int], key: _Key, sequence: int) -> None:
    sequences[key] = max(sequence, sequences.get(key, 0))


def _landed(
    con: duckdb.DuckDBPyConnection, pin: Pin, entity: str, columns: str, after: int
) -> Iterator[tuple[Any, ...]]:
    """Yield the columns, the highest sequence and the last operation of each key that landed after a sequence.

    A deletion tells its key only: the other columns are those of the row before it, which stands in older files.
    """
    files = pin.files(SOURCE, entity, after=after)
    if not files:
        return
    names = [f'"{name}"' for name in columns.split(", ")]
    newest = f"""
        select
            _key,
            {", ".join(f"arg_max({name}, _position) as {name}" for name in names)},
            max(_sequence) as sequence,
            arg_max(_op, _position) as op,
        from {{}}
        where {{}}
        group by _key
    """
    contract = entities(SOURCE)[entity]
    landed = newest.format(f"({relation(con, contract, files)})", f"_sequence > {after}")
    con.execute(f"create or replace temp table landed as {landed}")
    last_known = "select null as _key, " + ", ".join(f"null::varchar as {name}" for name in names)
    if con.execute("select count(*) from landed where op = 'd'").fetchone() != (0,):
        deleted = "_op <> 'd' and _key in (select _key from landed where op = 'd')"
        last_known = newest.format(f"({relation(con, contract, pin.files(SOURCE, entity))})", deleted)
    told = ", ".join(f"coalesce(landed.{name}, before.{name})" for name in names)
    found = con.execute(f"""
        with before as ({last_known})
        select {told}, landed.sequence, landed.op from landed left join before on landed._key = before._key
    """)
    while rows := found.fetchmany(10_000):
        yield from rows


def _read_progress(store: Store, pin: Pin) -> _Progress:
    """Return how far the copies are; at the start of a new generation when the raw zone is not the one they know."""
    found = store["copy_progress"].find_one({"_id": CONSUMER})
    if found is None:
        return _Progress()
    progress = _Progress(found["generation"], found["sequence"], found["batch_id"], found["landed_at"])
    if progress.batch_id is None or _is_in(pin, progress):
        return progress
    return _Progress(progress.generation + 1)


def _is_in(pin: Pin, progress: _Progress) -> bool:
    """Say whether the last batch that was copied is one of this raw zone."""
    place = progress.batch_id, progress.landed_at
    if any((commit.batch_id, _milliseconds(commit.landed_at)) == place for commit in _recent(pin)):
        return True
    merged = pin.batches(SOURCE, batch_id=progress.batch_id)
    return any(_milliseconds(commit.landed_at) == progress.landed_at for commit in merged)


def _reached(pin: Pin, last: Commit, before: _Progress) -> _Progress:
    """Return the progress up to the last batch; what says nothing but how far the log was read leaves no record."""
    batch = max((commit for commit in _recent(pin) if commit.entities), key=lambda each: each.sequence, default=None)
    if batch is None:
        return replace(before, sequence=last.sequence)
    return _Progress(before.generation, last.sequence, batch.batch_id, batch.landed_at)


def _recent(pin: Pin) -> list[Commit]:
    """Return the batches of the operational store whose records a reader of the raw zone has at hand."""
    return [commit for commit in (*pin.checkpoint.told, *pin.commits) if commit.source == SOURCE]


def _write_progress(store: Store, progress: _Progress) -> None:
    store["copy_progress"].replace_one(
        {"_id": CONSUMER},
        {
            "generation": progress.generation,
            "sequence": progress.sequence,
            "batch_id": progress.batch_id,
            "landed_at": progress.landed_at,
            "updated_at": datetime.now(UTC),
            "schema_version": 1,
        },
        upsert=True,
    )


def _lag(pin: Pin, progress: _Progress) -> float:
    """Return the age of the oldest batch that the copies do not show, in seconds."""
    is_merged = progress.sequence < pin.checkpoint.sequence
    landed = pin.batches(SOURCE) if is_merged else _recent(pin)
    missing = [commit.landed_at for commit in landed if commit.sequence > progress.sequence]
    return (datetime.now(UTC) - min(missing)).total_seconds() if missing else 0.0


def _milliseconds(moment: datetime) -> datetime:
    """Return a moment at the precision of the document store."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@contextmanager
def _asking() -> Iterator[psycopg.Connection]:
    with connect(autocommit=True) as connection:
        prepare_connection(connection)
        yield connection


def _parts(sequences: Mapping[_Key, int]) -> Iterator[dict[_Key, int]]:
    rest = iter(sequences.items())
    while part := dict(islice(rest, ENTITIES_A_BATCH)):
        yield part
