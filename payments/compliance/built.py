"""The warehouse beside the raw zone, as of the landing that dbt built it from: staging and marts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import duckdb

from ingestion.contracts import Column, Entity, entities
from ingestion.raw_zone import Pin
from payments.compliance.readings import Comparison, Reading, compared, has_more, latest, read
from payments.errors import UsageError

SOURCES = ("oltp", "files", "documents")
CAPTURED = "amount_captured_minor"
FILE_CAPTURED = "case when status in ('failed', 'pending') then 0 else amount_minor end"
"""What a transaction of a file captured: its whole amount, unless it failed or is pending."""


@dataclass(frozen=True)
class Mart:
    """A mart that holds the rows of an entity: the columns that it takes over, each with its name in the mart."""

    model: str
    source: str
    entity: str
    columns: Mapping[str, str]
    where: str = "true"


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


MARTS = (
    Mart(
        "fct_payments",
        "oltp",
        "charges",
        _same("merchant_id", "customer_id", "currency", "failure_code", "amount_minor")
        | {"charge_id": "payment_id", CAPTURED: "captured_amount_minor", "created_at": "paid_at"},
        "source = 'oltp'",
    ),
    Mart(
        "fct_payments",
        "files",
        "transactions",
        _same("merchant_id", "customer_id", "currency", "amount_minor")
        | {"transaction_id": "payment_id", CAPTURED: "captured_amount_minor", "transaction_at": "paid_at"},
        "source = 'files'",
    ),
    Mart(
        "fct_refunds",
        "oltp",
        "refunds",
        _same("merchant_id", "refund_id", "currency", "status", "reason", "amount_minor")
        | {"charge_id": "payment_id", "created_at": "refunded_at"},
    ),
    Mart(
        "fct_disputes",
        "oltp",
        "disputes",
        _same("merchant_id", "dispute_id", "currency", "status", "reason", "amount_minor", "fee_minor", "closed_at")
        | {"charge_id": "payment_id", "created_at": "opened_at"},
    ),
    Mart(
        "fct_ledger_entries",
        "oltp",
        "ledger_entries",
        _same("merchant_id", "ledger_transaction_id", "entry_no", "ledger_account_id", "currency", "side")
        | _same("amount_minor", "account_entry_no", "balance_after_minor", "posted_at"),
    ),
)


@dataclass(frozen=True)
class Warehouse:
    """What dbt built: the columns of each model by its relation, and the landing from which it was built."""

    columns: Mapping[str, frozenset[str]]
    sequence: int


def built(con: duckdb.DuckDBPyConnection) -> Warehouse:
    """Return what the attached warehouse holds. Raises ``UsageError`` when that is nothing."""
    found: dict[str, set[str]] = {}
    for relation, column in con.execute(
        """
        select schema_name || '.' || table_name, column_name
        from duckdb_columns()
        where database_name = 'wh' and schema_name in ('dev_staging', 'dev_marts')
        """
    ).fetchall():
        found.setdefault(relation, set()).add(column)
    if not found:
        raise UsageError("the warehouse has no models: run dbt build")
    return Warehouse({relation: frozenset(columns) for relation, columns in found.items()}, _built_from(con, found))


def _built_from(con: duckdb.DuckDBPyConnection, models: Mapping[str, set[str]]) -> int:
    """Return the landing that dbt pinned when it last ran: the newest that its view of the batches names."""
    view = con.execute("select sql from duckdb_views() where database_name = 'wh' and view_name = 'batches'").fetchone()
    bound = "" if view is None else str(view[0])
    pinned = [int(highest) for highest in re.findall(r"batches/(\d+)-\d+\.parquet", bound)]
    if "recent_batches" in bound:
        row = con.execute("select max(sequence) from wh.raw_platform.recent_batches").fetchone()
        pinned.append(0 if row is None else int(row[0] or 0))
    if pinned:
        return max(pinned)
    staged = [
        f"select max(_sequence) as s from wh.{name}" for name, columns in models.items() if "_sequence" in columns
    ]
    row = con.execute(f"select max(s) from ({' union all '.join(staged)})").fetchone() if staged else None
    return 0 if row is None else int(row[0] or 0)


def as_built(
    con: duckdb.DuckDBPyConnection, pin: Pin, warehouse: Warehouse, raw: Mapping[str, Reading]
) -> tuple[list[Comparison], list[str]]:
    """Compare raw zone and staging, staging and marts; return notes as well: the point, and what was not built.

    ``raw`` are readings of the raw zone by entity that were made already: they stand where nothing lies between.
    """
    found: list[Comparison] = []
    missing: list[str] = []
    for source in SOURCES:
        for entity in entities(source).values():
            name, model = f"{source}.{entity.name}", _staging_model(entity)
            if model not in warehouse.columns:
                missing.append(model)
                continue
            shape = _shape(entity, warehouse.columns[model])
            landed = _landed(con, pin, warehouse, shape, raw.get(name))
            found.append(compared(con, name, landed, read(con, shape, "staging", _staging(entity))))
    for mart in MARTS:
        entity, model = entities(mart.source)[mart.entity], f"dev_marts.{mart.model}"
        if missing_here := [name for name in (model, _staging_model(entity)) if name not in warehouse.columns]:
            missing += missing_here
            continue
        shape = _shape(entity, frozenset(mart.columns))
        columns = ", ".join(f'{theirs} as "{ours}"' for ours, theirs in mart.columns.items())
        published = read(con, shape, mart.model, f"(select {columns} from wh.{model} where {mart.where})")
        found.append(
            compared(con, f"{mart.source}.{mart.entity}", read(con, shape, "staging", _staging(entity)), published)
        )
    since = pin.sequence - warehouse.sequence
    notes = [
        f"raw zone, staging and marts are compared as of landing {warehouse.sequence}, which dbt read last"
        + (f" ({since} landed since)" if since > 0 else "")
    ]
    if pin.checkpoint.rewritten > warehouse.sequence:
        notes.append("somebody was erased from the raw zone since the warehouse was built: build again")
    if missing:
        notes.append(f"not built, so not compared: {', '.join(dict.fromkeys(missing))} (dbt build)")
    return found, notes


def _landed(
    con: duckdb.DuckDBPyConnection, pin: Pin, warehouse: Warehouse, shape: Entity, known: Reading | None
) -> Reading:
    """Read the raw zone as of the landing that the warehouse was built from, unless that was read already."""
    condition = f"_sequence <= {warehouse.sequence}"
    is_behind = has_more(con, pin, shape, condition)
    if known is not None:
        is_behind = is_behind or has_more(con, pin, shape, known.as_of)
        if not is_behind and shape == entities(shape.source)[shape.name]:
            return known
    store = "raw zone as built" if is_behind else "raw zone"
    return read(
        con, shape, store, _extended(shape, f"({latest(con, pin, entities(shape.source)[shape.name], condition)})")
    )


def _staging_model(entity: Entity) -> str:
    return f"dev_staging.stg_{entity.source}__{entity.name}"


def _staging(entity: Entity) -> str:
    return f"(select * from {_extended(entity, f'wh.{_staging_model(entity)}')} where not is_deleted)"


def _shape(entity: Entity, present: frozenset[str]) -> Entity:
    """Return an entity with the columns that a relation has, and what a transaction of a file captured."""
    columns = tuple(column for column in entity.columns if column.name in present)
    if entity.source == "files":
        columns = (*columns, Column(CAPTURED, "bigint"))
    return replace(entity, columns=columns)


def _extended(entity: Entity, relation: str) -> str:
    return f"(select *, {FILE_CAPTURED} as {CAPTURED} from {relation})" if entity.source == "files" else relation
