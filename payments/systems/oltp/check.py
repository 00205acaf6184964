"""Whether the money in the operational store is right: every invariant, asked of one snapshot of it.

The live path (SQL functions) and the bulk path (COPY) must satisfy the same checks. They see one snapshot of the store,
so that traffic while they run does not look like a fault.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from psycopg import Connection, errors, sql

from payments.errors import UsageError
from payments.systems.oltp.connection import connect
from payments.systems.oltp.invariants import balances, catalogue, ledger, payments
from payments.systems.oltp.invariants.invariant import SCHEMAS, Invariant

INVARIANTS = (
    ledger.LEDGER_BALANCES,
    ledger.BOOKS_SUM_TO_ZERO,
    ledger.PENDING_IS_HELD,
    ledger.ACCOUNTS_FOLLOW_ENTRIES,
    ledger.PROTECTED_ACCOUNTS,
    catalogue.GUARDS_STAND,
    catalogue.TRIGGERS_ENABLED,
    ledger.CHAIN_VERIFIES,
    ledger.CHAIN_IS_WHOLE,
    ledger.CLOSED_PERIODS,
    ledger.POSTED_ONCE,
    ledger.AUTHORIZATIONS,
    ledger.REVERSALS,
    payments.REFUNDS_WITHIN_CAPTURED,
    payments.DISPUTES_WITHIN_CAPTURED,
    payments.RETURNED_WITHIN_CAPTURED,
    payments.INTENTS,
    payments.FEES_ADD_UP,
    payments.PAYOUTS,
    payments.VERSIONS_GROW,
    payments.STATUS_CHANGES,
    payments.INVOICE_LINES,
    payments.INVOICES_SETTLED,
    payments.CONVERSIONS,
    balances.BALANCE_TRANSACTIONS,
    balances.POSTINGS,
    balances.SETTLEMENTS,
    balances.CLEARING,
    balances.MERCHANT_TOTALS,
    catalogue.CONSTRAINTS_VALIDATED,
    catalogue.TENANTS_ARE_APART,
)
# What triggers watch row by row on the live path: a bulk load, which switches them off, asks it of all rows at once.
GUARDED_BY_TRIGGERS = (
    ledger.LEDGER_BALANCES,
    payments.REFUNDS_WITHIN_CAPTURED,
    payments.DISPUTES_WITHIN_CAPTURED,
    payments.FEES_ADD_UP,
    payments.INVOICE_LINES,
)

_CONNECTIONS = 2


@dataclass(frozen=True)
class CheckResult:
    """One invariant: whether it holds, and how many rows it was asked of or which ones break it."""

    name: str
    passed: bool
    detail: str


def check() -> list[CheckResult]:
    """Ask every invariant of one snapshot of the operational store, several at a time.

    Raises:
        UsageError: the store cannot be reached, or its migrations were not applied.
    """
    with ExitStack() as stack:
        first, *others = [stack.enter_context(connect()) for _ in range(_CONNECTIONS)]
        first.execute("set transaction isolation level repeatable read, read only")
        (snapshot,) = _row(first, "select pg_export_snapshot()")
        for other in others:
            other.execute("set transaction isolation level repeatable read, read only")
            other.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
        idle: SimpleQueue[Connection] = SimpleQueue()
        for connection in (first, *others):
            connection.execute("set local work_mem = '128MB'")
            idle.put(connection)

        def ask_when_idle(invariant: Invariant) -> CheckResult:
            connection = idle.get()
            try:
                return _ask_one(connection, invariant)
            finally:
                idle.put(connection)

        try:
            with ThreadPoolExecutor(_CONNECTIONS) as pool:
                return list(pool.map(ask_when_idle, INVARIANTS))
        except (errors.UndefinedTable, errors.InvalidSchemaName, errors.InFailedSqlTransaction) as error:
            raise UsageError("The operational store has no complete schema yet: run payments up.") from error


def ask(connection: Connection, invariants: Iterable[Invariant]) -> list[CheckResult]:
    """Ask invariants within the transaction of a connection."""
    return [_ask_one(connection, invariant) for invariant in invariants]


def _ask_one(connection: Connection, invariant: Invariant) -> CheckResult:
    asked, count, first = _row(
        connection,
        """
        select
            (select count(*) from {asked_of} as asked),
            count(*),
            min(violation)
        from ({violations}) as found (violation)
        """,
        asked_of=_with_schemas(invariant.asked_of),
        violations=_with_schemas(invariant.violations),
    )
    if count == 0:
        return CheckResult(invariant.name, True, f"holds for {asked:,} rows")
    return CheckResult(invariant.name, False, f"broken {count:,} times in {asked:,} rows, first by {first}")


def _with_schemas(query: str) -> sql.Composable:
    return sql.SQL(query).format(schemas=sql.Literal(list(SCHEMAS)))


def _row(connection: Connection, query: str, **parts: sql.Composable) -> tuple[Any, ...]:
    row = connection.execute(sql.SQL(query).format(**parts)).fetchone()
    assert row is not None  # noqa: S101 (an aggregate returns a row)
    return row
