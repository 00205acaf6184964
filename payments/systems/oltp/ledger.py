"""The ledger as an accountant uses it: sealed, closed by month, summed, exported and corrected by two people."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Literal

import psycopg
import pyarrow as pa
import pyarrow.parquet
from psycopg import Connection, errors, sql

from payments.errors import UsageError
from payments.systems.oltp.connection import connect

_ROWS_AT_ONCE = 50_000
_START, _END = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_EXPORT_ORDER = "order by posted_at, merchant_id, ledger_transaction_id, entry_no"
_EXPORT_TYPES: dict[str, pa.DataType] = {
    "posted_at": pa.timestamp("us", tz="UTC"),
    "recorded_at": pa.timestamp("us", tz="UTC"),
    "merchant_id": pa.string(),
    "ledger_transaction_id": pa.string(),
    "entry_no": pa.int16(),
    "kind": pa.string(),
    "source_id": pa.string(),
    "ledger_account_id": pa.string(),
    "currency": pa.string(),
    "debit_minor": pa.int64(),
    "credit_minor": pa.int64(),
    "account_entry_no": pa.int64(),
    "balance_after_minor": pa.int64(),
}
_EXPORT_SCHEMA = pa.schema(_EXPORT_TYPES)


@dataclass(frozen=True)
class TrialBalanceLine:
    """Debits, credits and balance (on the normal side) of an account code in one currency, in minor units."""

    currency: str
    code: str
    debits_minor: int
    credits_minor: int
    balance_minor: int


def seal(connection: Connection) -> int:
    """Seal the postings recorded since the last seal, in a transaction of its own; return how many, zero for none.

    Args:
        connection: without an open transaction: a seal covers only what is committed.
    """
    with connection.transaction():
        # A bulk load leaves hundreds of thousands of postings to read in order.
        connection.execute("set local work_mem = '256MB'")
        [(sealed,)] = connection.execute("select ledger.seal()").fetchall()
    return int(sealed)


def close_period(month: date) -> None:
    """Close a month that has ended, for ever; closing it again changes nothing.

    Raises:
        UsageError: the month has not ended.
    """
    with connect() as connection, _refusals_explained():
        connection.execute("call ledger.close_period(%s)", (month,))


def trial_balance(until: date | None = None) -> list[TrialBalanceLine]:
    """Return the sums of every account code over all books, by currency, up to the end of a day (UTC) or of time."""
    with connect() as connection:
        rows = connection.execute(
            """
            select currency, code, debits_minor, credits_minor, balance_minor
            from ledger.trial_balance(%s)
            order by currency, code
            """,
            ("infinity" if until is None else _day_after(until),),
        )
        return [TrialBalanceLine(currency, code, int(d), int(c), int(b)) for currency, code, d, c, b in rows]


def out_of_balance(lines: list[TrialBalanceLine]) -> dict[str, int]:
    """Return by how much debits exceed credits in each currency where they are not equal."""
    differences: dict[str, int] = {}
    for line in lines:
        differences[line.currency] = differences.get(line.currency, 0) + line.debits_minor - line.credits_minor
    return {currency: difference for currency, difference in differences.items() if difference}


def export(file: Path, first: date | None = None, last: date | None = None) -> int:
    """Write the general ledger, an entry a row in order of time, and return how many rows.

    Rows stream from one snapshot of the store; the file appears, complete, under its name at the end.

    Args:
        file: ``.csv`` or ``.parquet``.
        first: the first day (UTC) to write.
        last: the last day (UTC) to write.

    Raises:
        UsageError: the name has another ending, its folder does not exist, or the days run backwards.
    """
    if first is not None and last is not None and first > last:
        raise UsageError(f"The days run backwards: {first} is after {last}.")
    if file.suffix not in {".csv", ".parquet"}:
        raise UsageError(f"The ledger is written as .csv or .parquet, but the file is {file.name!r}.")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"The folder of {file} does not exist: make it first.")
    bounds = (_start_of(first) if first else _START, _day_after(last) if last else _END)
    aside = file.with_name(file.name + ".part")
    try:
        with connect() as connection:
            rows = (_export_csv if file.suffix == ".csv" else _export_parquet)(connection, aside, bounds)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return rows


def _export_csv(connection: Connection, path: Path, bounds: tuple[datetime, datetime]) -> int:
    with path.open("wb") as out, connection.cursor() as cursor:
        statement = sql.SQL("copy ({}) to stdout (format csv, header)").format(_export_query())
        with cursor.copy(statement, bounds) as copy:
            for chunk in copy:
                out.write(chunk)
        return cursor.rowcount


def _export_parquet(connection: Connection, path: Path, bounds: tuple[datetime, datetime]) -> int:
    count = 0
    with (
        pyarrow.parquet.ParquetWriter(path, _EXPORT_SCHEMA) as writer,
        connection.cursor(name="general_ledger") as cursor,
    ):
        cursor.execute(_export_query(), bounds)
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            values = zip(zip(*rows, strict=True), _EXPORT_SCHEMA, strict=True)
            columns = [pa.array(column, field.type) for column, field in values]
            writer.write_batch(pa.record_batch(columns, schema=_EXPORT_SCHEMA))
            count += len(rows)
    return count


def _export_query() -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, _EXPORT_SCHEMA.names))
    text = "select {} from ledger.general_ledger where posted_at >= %s and posted_at < %s " + _EXPORT_ORDER
    return sql.SQL(text).format(columns)


def propose_adjustment(merchant_id: str, amount_minor: int, currency: str, reason: str) -> str:
    """Propose to correct a merchant's balance, up or (below zero) down, and return the id of the proposal.

    Raises:
        UsageError: the merchant or currency is unknown, the amount is zero, or the reason is shorter than ten letters.
    """
    with connect() as connection, _refusals_explained():
        [(adjustment_id,)] = connection.execute(
            "select core.propose_adjustment(%s, %s, %s, %s)", (merchant_id, amount_minor, currency, reason)
        ).fetchall()
        return str(adjustment_id)


def decide_adjustment(merchant_id: str, adjustment_id: str, decision: Literal["approved", "rejected"]) -> None:
    """Approve a proposal, which posts it, or reject it, as another login than the one that proposed it.

    Raises:
        UsageError: it does not exist, was decided before, or was proposed by this very login.
    """
    with connect() as connection, _refusals_explained():
        connection.execute("select core.decide_adjustment(%s, %s, %s)", (merchant_id, adjustment_id, decision))


@contextmanager
def _refusals_explained() -> Iterator[None]:
    try:
        yield
    except errors.IntegrityError as error:
        if error.diag.constraint_name == "maker_is_not_checker":
            advice = "who proposed an adjustment cannot decide it: name another login in PAYMENTS_OLTP_DSN."
            raise UsageError(advice) from None
        detail = error.diag.message_detail if error.diag.constraint_name and error.sqlstate == "23503" else None
        raise UsageError(" ".join(filter(None, (f"{error.diag.message_primary}.", detail)))) from None
    except (errors.NoDataFound, errors.InsufficientPrivilege, psycopg.DataError) as error:
        raise UsageError(f"{error.diag.message_primary}.") from None


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _day_after(day: date) -> datetime:
    return _start_of(day + timedelta(days=1))
