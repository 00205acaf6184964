"""The same content in every store: counts, order-free checksums and money per currency, entity by entity.

The operational store is read at a barrier, a place of its log (:mod:`payments.compliance.barrier`); everything before
it is landed, and the raw zone is read as of it: what is committed meanwhile does not disturb. The warehouse is
compared with the raw zone as of the landing that it was built from, which may be older; the document store with what
was landed of it. Each store is read on its own; amounts are integers of minor units.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import duckdb

from ingestion.cdc.generation import NAME, log_name
from ingestion.cdc.stream import drain
from ingestion.cdc.totals import EntityTotals, topic_totals
from ingestion.contracts import entities
from ingestion.oltp import SOURCE as OLTP
from ingestion.oltp import epoch_of, tables_now
from ingestion.raw_zone import Pin, Position, RawZone
from payments.compliance.barrier import Barrier, barrier
from payments.compliance.built import CAPTURED, SOURCES, as_built, built
from payments.compliance.content import Content
from payments.compliance.documents import copies_reached, documents_compared, load_spent, spent_compared
from payments.compliance.readings import (
    Comparison,
    Reading,
    as_of,
    changes_landed,
    compared,
    compared_columns,
    in_quarantine,
    operational,
    session,
)
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect
from payments.systems.stream import server as broker

WAIT_SECONDS = 60.0
"""How long a stream of another process may take to land what stands before the barrier."""
_POLL_SECONDS = 0.5
COLUMNS = ("PostgreSQL", "topics", "raw zone", "raw zone as built", "staging", "marts", "document store")


@dataclass(frozen=True)
class Reconciliation:
    """All comparisons; ``notes`` say at which points, and what could not be compared."""

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> tuple[str, ...]:
        """What differs, a sentence each; the first differing keys of an entity follow its measures."""
        return tuple(
            sentence
            for comparison in self.comparisons
            for sentence in (*comparison.differences, *(f"{comparison.entity} {key}" for key in comparison.first))
        )

    def header(self) -> list[str]:
        """Return the column titles of :meth:`matrix`: the stores that were read."""
        found = {_column(store) for comparison in self.comparisons for store in comparison.contents}
        return ["entity", *(column for column in COLUMNS if column in found), "equal"]

    def matrix(self) -> Iterator[tuple[object, ...]]:
        """Yield one row an entity: its number of rows in each store, and whether all that was compared is equal."""
        for entity, found in self._by_entity().items():
            rows = {_column(store): content.rows for one in found for store, content in one.contents.items()}
            values = [rows.get(column) for column in self.header()[1:-1]]
            yield (entity, *values, "yes" if all(one.agrees for one in found) else "NO")

    def captured(self) -> Iterator[tuple[object, ...]]:
        """Yield one row an entity and currency: the money captured, in minor units, in the stores of :meth:`matrix`."""
        for entity, found in self._by_entity().items():
            totals = {
                (currency, _column(store)): total
                for one in found
                for store, content in one.contents.items()
                for (column, currency), total in content.money.items()
                if column == CAPTURED
            }
            stores = {_column(store) for one in found for store in one.contents}
            for currency in sorted({currency for currency, _ in totals}):
                values = [
                    totals.get((currency, column), 0 if column in stores else None) for column in self.header()[1:-1]
                ]
                # Stores are compared at a point each: at the barrier, or as of what the warehouse was built from.
                is_equal = all(
                    len({content.money.get((CAPTURED, currency), 0) for content in one.contents.values()}) <= 1
                    for one in found
                )
                yield (f"{entity} {currency}", *values, "yes" if is_equal else "NO")

    def as_json(self) -> str:
        """Return everything that was found as one JSON document; checksums as text, since they outgrow a double."""
        found = [
            {
                "entity": comparison.entity,
                "equal": comparison.agrees,
                "stores": {store: _plain(content) for store, content in comparison.contents.items()},
                "first_differing_keys": comparison.first,
            }
            for comparison in self.comparisons
        ]
        return json.dumps({"equal": not self.differences, "comparisons": found, "notes": self.notes}, indent=1)

    def _by_entity(self) -> dict[str, list[Comparison]]:
        found: dict[str, list[Comparison]] = {}
        for comparison in self.comparisons:
            found.setdefault(comparison.entity, []).append(comparison)
        return found


def _plain(content: Content) -> dict[str, object]:
    money: dict[str, dict[str, int]] = {}
    for (column, currency), total in content.money.items():
        money.setdefault(column, {})[currency] = total
    return {"rows": content.rows, "checksum": f"{content.checksum:x}", "money": money}


def _column(store: str) -> str:
    return store if store in COLUMNS else "marts"


def reconcile() -> Reconciliation:
    """Compare every entity in all stores, each at a point at which the stores must agree.

    Where a stream was begun, what was committed before the barrier is landed first, or another process is given time to
    do so. Raises ``UsageError`` when a store cannot be read: PostgreSQL is down although it was landed, or dbt has not
    built.
    """
    zone = RawZone(settings().raw_zone)
    comparisons: list[Comparison] = []
    notes: list[str] = []
    raw: dict[str, Reading] = {}
    with session(settings().warehouse_path) as con, ExitStack() as stack:
        warehouse = built(con)
        pin = zone.pin()
        if pin.last_of(OLTP) is None:
            notes.append("PostgreSQL has never landed, so it is not compared")
        else:
            bring_up()  # what begins anew with a snapshot has to do so before the barrier
            last = zone.pin().last_of(OLTP)  # it lies before the barrier, so it tells whether that is the same log
            found = stack.enter_context(barrier())
            place = Position(epoch_of(last, found.point), found.point.lsn, 0, 0)
            pin, raw, comparisons, notes = _at_barrier(con, zone, found, place)
            comparisons += _on_topics(con, pin, place)
        part, said = as_built(con, pin, warehouse, raw)
        comparisons += part
        notes += said
        part, said = documents_compared(con, pin)
        comparisons += part
        notes += said
        if part and pin.last_of(OLTP) is not None:
            comparisons += _spent(con, zone)
        notes += _refused(con, pin, comparisons)
    return Reconciliation(tuple(comparisons), tuple(notes))


def _refused(con: duckdb.DuckDBPyConnection, pin: Pin, comparisons: list[Comparison]) -> Iterator[str]:
    """Say of which differing entities records stand in quarantine: these are in no store behind it."""
    for name in dict.fromkeys(comparison.entity for comparison in comparisons if not comparison.agrees):
        source, _, entity = name.partition(".")
        if source in SOURCES and (refused := in_quarantine(con, pin, entities(source)[entity])):
            yield f"{name}: {refused} records stand in quarantine (payments quarantine)"


def _landings(zone: RawZone) -> Iterator[tuple[Pin, bool]]:
    """Yield the raw zone with what was committed; while another process lands it (True), again and again for a time."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        is_elsewhere = bring_up()
        yield zone.pin(), is_elsewhere
        if not is_elsewhere or time.monotonic() > until:
            return
        time.sleep(_POLL_SECONDS)


def bring_up() -> bool:
    """Land what was committed, where a stream was begun; return whether another process is doing that."""
    is_active = _slot_is_active()
    if is_active is False:
        try:
            drain()
        except UsageError:
            is_active = _slot_is_active()
            if not is_active:
                raise
    return bool(is_active)


def _spent(con: duckdb.DuckDBPyConnection, zone: RawZone) -> Iterator[Comparison]:
    """Compare what customers spent, as their profiles and the raw zone tell, again while another process is landing."""
    copied = copies_reached()
    if copied is None:
        return
    load_spent(con)
    for pin, _ in _landings(zone):
        found = spent_compared(con, pin, copied)
        if found.agrees:
            break
    yield found


def _slot_is_active() -> bool | None:
    """Return whether somebody reads the slot of the stream; None when there is no slot."""
    with connect(autocommit=True) as connection:
        row = connection.execute("select active from pg_replication_slots where slot_name = %s", (NAME,)).fetchone()
    return None if row is None else bool(row[0])


def _at_barrier(
    con: duckdb.DuckDBPyConnection, zone: RawZone, found: Barrier, place: Position
) -> tuple[Pin, dict[str, Reading], list[Comparison], list[str]]:
    """Compare PostgreSQL at the barrier and the raw zone as of it, again while another process is still landing.

    Equal content needs no other proof that everything has landed; only a difference has to wait for it. Returns the pin
    and the readings of the raw zone as well.
    """
    tables = {f"{OLTP}.{table.entity.name}": table for table in tables_now(found.connection, zone.pin())}
    readable = {name: table for name, table in tables.items() if table.view.stopped is None}
    landed: dict[str, Reading] = {}
    pending = list(readable)
    with ThreadPoolExecutor(max_workers=1) as reader:  # PostgreSQL reads while DuckDB does
        source = {name: reader.submit(operational, con, found, table) for name, table in readable.items()}
        for pin, is_elsewhere in _landings(zone):
            for name in pending:
                landed[name] = as_of(con, pin, compared_columns(readable[name]), f"_position < '{place}'")
            pending = [name for name in pending if source[name].result().content != landed[name].content]
            is_late = bool(pending) and is_elsewhere and not _has_reached(pin, place)
            if not is_late:
                break
    comparisons = [compared(con, name, source[name].result(), landed[name]) for name in readable]
    notes = [f"PostgreSQL and raw zone are compared at the barrier {found.place}"]
    if found.doubt is not None:
        notes.append(f"the barrier is only as exact as the store is quiet: it gives no logical slot ({found.doubt})")
    if is_late:
        notes.append(f"the stream has not reached the barrier within {WAIT_SECONDS:.0f} s: what differs may be late")
    for name, table in tables.items():
        if table.view.stopped is not None:
            comparisons.append(Comparison(name, {}, (f"cannot be compared: {table.view.stopped}",)))
        elif gone := [column for column, place in table.view.sources.items() if place is None]:
            notes.append(f"{name} is compared without {', '.join(gone)}: PostgreSQL has no such column any more")
    return pin, landed, comparisons, notes


def _on_topics(con: duckdb.DuckDBPyConnection, pin: Pin, place: Position) -> Iterator[Comparison]:
    """Compare the changes that the topic of a broker holds, up to the barrier, with those that have landed.

    Of what a snapshot found later the log need not tell everything: the comparison begins with the last one.
    """
    last = pin.last_of(OLTP)
    if last is None or "generation" not in last.parameters or not broker.is_wanted():
        return
    snapshot = pin.last_of(OLTP, "columns")
    since = 0 if snapshot is None else snapshot.reached.commit_lsn
    found = topic_totals(log_name(last), place.commit_lsn, since)
    if found is None:
        return
    start, end = Position(found.epoch, found.start_lsn, 0, 0), Position(found.epoch, found.end_lsn, 0, 0)
    for entity in entities(OLTP).values():
        told = found.entities.get(entity.name, EntityTotals(0, 0))
        landed = changes_landed(con, pin, entity, start, end)
        if told.changes or landed.rows:
            contents = {"topics": Content(told.changes, told.checksum), "raw zone": landed}
            yield Comparison(f"changes.{entity.name}", contents)


def _has_reached(pin: Pin, place: Position) -> bool:
    """Return whether everything before a place of the log has landed, as the last commit tells."""
    last = pin.last_of(OLTP)
    return last is not None and (last.reached.epoch, int(last.parameters["lsn"])) >= (place.epoch, place.commit_lsn)
