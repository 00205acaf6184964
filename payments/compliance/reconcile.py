"""The same money in every store: captured amounts and counts of payments, store by store, per source and currency.

Each store is read on its own: PostgreSQL, the committed files of the raw zone, the staging models, ``fct_payments``.
Amounts are integers of minor units.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import duckdb

from ingestion.raw_zone import Pin, RawZone, parquet
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect

STORES = ("PostgreSQL", "raw zone", "staging", "fct_payments")
MEASURES = ("captured", "payments")
FILE_CAPTURED = "case when status in ('failed', 'pending') then 0 else amount_minor end"
"""What a transaction of a file captured: its whole amount, unless it failed or is pending."""


class Total(NamedTuple):
    """What one store holds of one source in one currency: the captured amount in minor units, and the payments."""

    captured: int
    payments: int


Totals = Mapping[str, Total]


@dataclass(frozen=True)
class Line:
    """One measure of one source and currency in each store; None where the source does not pass through the store."""

    source: str
    currency: str
    measure: str
    values: tuple[int | None, ...]

    @property
    def agrees(self) -> bool:
        """Whether all stores that hold the source say the same."""
        return len({value for value in self.values if value is not None}) == 1


@dataclass(frozen=True)
class Reconciliation:
    """The comparison: one line a source, currency and measure."""

    lines: tuple[Line, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """One sentence a line on which the stores differ."""
        return tuple(
            f"{line.source} {line.currency} {line.measure}: "
            + ", ".join(
                f"{store} {value}" for store, value in zip(STORES, line.values, strict=True) if value is not None
            )
            for line in self.lines
            if not line.agrees
        )

    def header(self) -> list[str]:
        """Return the column titles of :meth:`table`."""
        return ["source", "currency", "measure", *STORES, "equal"]

    def table(self) -> Iterator[tuple[object, ...]]:
        """Yield one row a line, with whether the stores agree."""
        for line in self.lines:
            yield (line.source, line.currency, line.measure, *line.values, "yes" if line.agrees else "NO")


def reconcile() -> Reconciliation:
    """Compare captured money and counts across the stores.

    Raises ``UsageError`` when a store cannot be read: PostgreSQL is down although it was landed, or dbt has not built.
    """
    pin = RawZone(settings().raw_zone).pin()
    with _warehouse() as warehouse:
        by_source: dict[str, tuple[Totals | None, ...]] = {
            "oltp": (
                _operational(pin),
                _raw(warehouse, pin, "oltp", "charges", "amount_captured_minor"),
                _staged(warehouse, "stg_oltp__charges", "amount_captured_minor"),
                _published(warehouse, "oltp"),
            ),
            "files": (
                None,
                _raw(warehouse, pin, "files", "transactions", FILE_CAPTURED),
                _staged(warehouse, "stg_files__transactions", FILE_CAPTURED),
                _published(warehouse, "files"),
            ),
        }
    return Reconciliation(tuple(line for source, totals in by_source.items() for line in _lines(source, totals)))


def _lines(source: str, stores: tuple[Totals | None, ...]) -> Iterator[Line]:
    currencies = sorted({currency for totals in stores if totals is not None for currency in totals})
    for currency in currencies:
        found = [None if totals is None else totals.get(currency, Total(0, 0)) for totals in stores]
        for place, measure in enumerate(MEASURES):
            yield Line(source, currency, measure, tuple(None if total is None else total[place] for total in found))


def _operational(pin: Pin) -> Totals | None:
    """Read PostgreSQL; None when it is not there and was never landed (a platform that only takes files)."""
    try:
        connection = connect()
    except UsageError:
        if pin.last_of("oltp") is None:
            return None
        raise
    with connection:
        return _totals(
            connection.execute(
                "select currency, sum(amount_captured_minor), count(*) from core.charges group by currency"
            ).fetchall()
        )


def _warehouse() -> duckdb.DuckDBPyConnection:
    path = settings().warehouse_path
    if not path.exists():
        raise UsageError(f"there is no warehouse at {path}: run dbt build")
    return duckdb.connect(str(path), read_only=True)


def _raw(warehouse: duckdb.DuckDBPyConnection, pin: Pin, source: str, entity: str, captured: str) -> Totals:
    """Read the latest version of each record from the committed files, without those deleted."""
    files = pin.files(source, entity)
    if not files:
        return {}
    return _totals(
        warehouse.execute(
            f"""
            with latest as (
                select *
                from {parquet(files)}
                qualify row_number() over (partition by _key order by _position desc, _sequence desc) = 1
            )
            select currency, sum({captured}), count(*)
            from latest
            where _op <> 'd'
            group by currency
            """
        ).fetchall()
    )


def _staged(warehouse: duckdb.DuckDBPyConnection, model: str, captured: str) -> Totals:
    return _of_model(
        warehouse,
        f"dev_staging.{model}",
        f"select currency, sum({captured}), count(*) from dev_staging.{model} where not is_deleted group by currency",
    )


def _published(warehouse: duckdb.DuckDBPyConnection, source: str) -> Totals:
    return _of_model(
        warehouse,
        "dev_marts.fct_payments",
        f"""
        select currency, sum(captured_amount_minor), count(*)
        from dev_marts.fct_payments
        where source = '{source}'
        group by currency
        """,
    )


def _of_model(warehouse: duckdb.DuckDBPyConnection, relation: str, query: str) -> Totals:
    try:
        return _totals(warehouse.execute(query).fetchall())
    except duckdb.CatalogException as error:
        raise UsageError(f"the warehouse has no {relation}: run dbt build") from error


def _totals(rows: list[tuple[str, int, int]]) -> Totals:
    return {currency: Total(int(captured), int(payments)) for currency, captured, payments in rows}
