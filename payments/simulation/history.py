"""Bulk history: a believable payments business, written into both operational stores from one seed.

PostgreSQL gets everything in one transaction, with a row in `simulation.runs` that names the history: payments and
authorizations, refunds, disputes and inquiries, reviews and warnings, checkout, subscriptions and invoices, payouts,
transfers, top-ups, conversions, adjustments, and the books of all merchants, which the next transaction seals.
Documents follow, each with an `_id` from the seed. Whatever is interrupted, the same call again ends with exactly the
rows of an undisturbed run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.types.json import Json
from pymongo.database import Database
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from payments.errors import UsageError
from payments.settings import settings
from payments.simulation.bank import COLLECTIONS as BANK
from payments.simulation.bank import Bank, write_bank
from payments.simulation.business import build_business
from payments.simulation.document_writer import write_collection
from payments.simulation.documents import COLLECTIONS, Documents
from payments.simulation.oltp_writer import write_tables
from payments.simulation.plan import Plan
from payments.simulation.tables import Tables
from payments.systems.documents.client import database
from payments.systems.oltp.connection import connect
from payments.systems.oltp.ledger import seal
from payments.vault import KeyRing, encrypt_field, unwrap

# Any number will do, as long as every simulation asks for the same one.
_ADVISORY_LOCK = 5_432_010
_LOCK_TIMEOUT = "60s"
_MOST_TRANSACTIONS = 20_000_000
_OTHER_VERSION = (
    "The store holds this history as another version of the generator made it: "
    "use an empty store (payments down, then remove the state folder)."
)


@dataclass(frozen=True)
class SimulationReport:
    """What a history holds by table and collection, what this call had to write of it, and how long that took."""

    seed: int
    tables: dict[str, int]
    collections: dict[str, int]
    is_oltp_new: bool
    documents_inserted: dict[str, int]
    oltp_seconds: float
    documents_seconds: float

    @property
    def seconds(self) -> float:
        """The time of the whole call."""
        return self.oltp_seconds + self.documents_seconds

    @property
    def changed_nothing(self) -> bool:
        """Whether the whole history was there already."""
        return not self.is_oltp_new and not any(self.documents_inserted.values())

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the report as rows: store, table or collection, and rows, with what was there already marked."""
        held = "" if self.is_oltp_new else " (already there)"
        tables = [("PostgreSQL", name, f"{count:,}{held}") for name, count in sorted(self.tables.items())]
        documents = []
        for name, count in self.collections.items():
            inserted = self.documents_inserted.get(name, 0)
            note = "" if inserted == count else " (already there)" if not inserted else f" ({inserted:,} of them new)"
            documents.append(("MongoDB", name, f"{count:,}{note}"))
        return tables + documents


@dataclass(frozen=True)
class _Run:
    """A history as `simulation.runs` knows it."""

    digest: str
    tables: dict[str, int]
    collections: dict[str, int]
    has_all_documents: bool


def simulate(transactions: int, days: int, seed: int, end: date = date(2026, 6, 30)) -> SimulationReport:
    """Write a history of this many charges, over the days that end with `end`, into both operational stores.

    The same call again changes nothing, or completes what an interruption left out.

    Raises:
        UsageError: a number out of range, a store that holds other data, or another simulation at work.
    """
    plan = _checked(Plan(transactions, days, seed, end))
    began = time.perf_counter()
    documents_store = database()
    with connect(autocommit=True) as connection, _progress() as advance:
        _lock(connection)
        run = _find_run(connection, plan)
        if run is not None and set(run.collections) != {*COLLECTIONS, *BANK}:
            raise UsageError(_OTHER_VERSION)
        if run is not None and run.has_all_documents and _holds_all(documents_store, run):
            took = time.perf_counter() - began
            return SimulationReport(seed, run.tables, run.collections, False, {}, took, 0.0)

        business = build_business(plan)
        tables = Tables(business)
        documents, bank = Documents(tables), Bank(tables)
        counts = documents.counts() | bank.counts()
        is_new = run is None
        if run is None:
            _refuse_other_documents(documents_store)
            run = _write_oltp(connection, plan, tables, counts, advance)
        elif run.digest != tables.digest() or run.collections != counts:
            raise UsageError(_OTHER_VERSION)
        # Also when an earlier call was killed before it came to this; what is sealed already stays as it is.
        seal(connection)
        oltp_done = time.perf_counter()
        inserted = {
            collection.name: write_collection(documents_store, collection, is_new, advance)
            for collection in documents.collections(_sealing(connection, tables, documents))
        }
        inserted |= write_bank(documents_store, connection, bank, advance)
        _mark_documents(connection, plan)
    return SimulationReport(
        seed=seed,
        tables=run.tables,
        collections=run.collections,
        is_oltp_new=is_new,
        documents_inserted=inserted,
        oltp_seconds=oltp_done - began,
        documents_seconds=time.perf_counter() - oltp_done,
    )


def _checked(plan: Plan) -> Plan:
    if not 1 <= plan.transactions <= _MOST_TRANSACTIONS:
        raise UsageError(f"Give a number of transactions from 1 to {_MOST_TRANSACTIONS:,}, not {plan.transactions:,}.")
    if not 1 <= plan.days <= 3650:
        raise UsageError(f"Give a number of days from 1 to 3650, not {plan.days}.")
    if not 0 <= plan.seed < 2**63:
        raise UsageError(f"Give a seed from 0 to 2**63 - 1, not {plan.seed}.")
    if not date(1990, 1, 1) <= plan.end <= date(2080, 12, 31):
        raise UsageError(f"Give an end from 1990-01-01 to 2080-12-31, not {plan.end}.")
    return plan


def _lock(connection: Connection) -> None:
    """Keep other simulations out until the connection closes; the remains of a killed one end within moments."""
    connection.execute(f"set lock_timeout = '{_LOCK_TIMEOUT}'")
    try:
        connection.execute("select pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise UsageError("Another simulation is at work in this store: wait until it has finished.") from error
    connection.execute("set lock_timeout = 0")


def _find_run(connection: Connection, plan: Plan) -> _Run | None:
    """Return this plan's history if the store holds it.

    Raises:
        UsageError: the store holds something else.
    """
    is_empty = connection.execute("select not exists (select from core.merchants)").fetchone() == (True,)
    if is_empty:
        return None
    found = connection.execute(
        """
        select content_digest, row_counts, document_counts, documents_completed_at is not null
        from simulation.runs
        where seed = %s and transactions = %s and days = %s and end_on = %s
        """,
        (plan.seed, plan.transactions, plan.days, plan.end),
    ).fetchone()
    if found is None:
        raise UsageError(
            "The operational store holds other data than this history: simulate into an empty store "
            "(payments down, then remove the state folder), or repeat the call that made it."
        )
    return _Run(*found)


def _refuse_other_documents(documents_store: Database[dict[str, Any]]) -> None:
    """A new history begins with empty collections: what lies there belongs to another one, or to nobody any more.

    Raises:
        UsageError: a collection has documents.
    """
    for name in (*COLLECTIONS, *BANK):
        if documents_store[name].find_one({}, {"_id": 1}) is not None:
            raise UsageError(
                f"The collection {name} has documents of another history: empty the document store too "
                "(payments down, then remove the state folder)."
            )


def _write_oltp(
    connection: Connection,
    plan: Plan,
    tables: Tables,
    document_counts: dict[str, int],
    advance: Callable[[str, int, int], None],
) -> _Run:
    made = tables.all(KeyRing.load_or_create(settings().key_ring_path))
    totals = {table.name: table.rows for table in made}
    run = _Run(tables.digest(), totals, document_counts, False)
    with connection.transaction():
        write_tables(connection, plan, made, advance)
        # A store that was emptied by hand may still name the history that it held.
        connection.execute("delete from simulation.runs")
        connection.execute(
            """
            insert into simulation.runs
                (seed, transactions, days, end_on, content_digest, row_counts, document_counts)
            values (%s, %s, %s, %s, %s, %s, %s)
            """,
            (plan.seed, plan.transactions, plan.days, plan.end, run.digest, Json(totals), Json(document_counts)),
        )
    return run


def _sealing(connection: Connection, tables: Tables, documents: Documents) -> Callable[[int, str], bytes | None]:
    """Return what encrypts a text under the key of a person, as the vault holds it; None for an erased person."""
    ring = KeyRing.load_or_create(settings().key_ring_path)
    subject_ids = tables.identities.subject_ids
    stored = connection.execute(
        "select subject_id, wrapped_key from vault.subjects where subject_id = any(%s) and wrapped_key is not null",
        ([subject_ids[row] for row in documents.feedback_subjects().tolist()],),
    ).fetchall()
    data_keys = {subject_id: unwrap(ring, bytes(wrapped), subject_id) for subject_id, wrapped in stored}

    def encrypt(person: int, text: str) -> bytes | None:
        data_key = data_keys.get(subject_ids[person])
        return None if data_key is None else encrypt_field(data_key, text, "feedback")

    return encrypt


def _mark_documents(connection: Connection, plan: Plan) -> None:
    connection.execute(
        """
        update simulation.runs set documents_completed_at = now()
        where seed = %s and transactions = %s and days = %s and end_on = %s and documents_completed_at is null
        """,
        (plan.seed, plan.transactions, plan.days, plan.end),
    )


def _holds_all(documents_store: Database[dict[str, Any]], run: _Run) -> bool:
    return all(documents_store[name].estimated_document_count() >= count for name, count in run.collections.items())


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar for each table and collection, on a terminal only; yields `advance(name, rows, total)`."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, Any] = {}

        def advance(name: str, rows: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total)
            progress.advance(bars[name], rows)

        yield advance
