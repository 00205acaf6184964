"""What the operational store needs done regularly, whoever calls for it: partitions, expiry, settlement, seals."""

from dataclasses import dataclass

from payments.systems.oltp.connection import connect
from payments.systems.oltp.ledger import seal
from payments.systems.oltp.partitions import create_months


@dataclass(frozen=True)
class Maintenance:
    """What one round did: partitions made, and how many authorizations, days, keys and postings it dealt with."""

    partitions: tuple[str, ...]
    expired_authorizations: int
    settled_days: int
    forgotten_keys: int
    sealed_postings: int


def maintain() -> Maintenance:
    """Do one round of maintenance; each part commits by itself, and a second round finds nothing left to do.

    Makes the monthly partitions that come next, gives up authorizations that ran out, settles the days whose money has
    arrived, forgets idempotency keys older than 24 hours, and seals what the ledger recorded since the last round.

    Raises:
        UsageError: the store cannot be reached, or its tables are in use for too long to make partitions.
    """
    partitions = create_months()
    with connect(autocommit=True) as connection:
        expired = _number(connection.execute("select core.expire_authorizations()").fetchone())
        due = connection.execute(
            """
            select distinct a.merchant_id, a.currency
            from ledger.accounts as a
            where a.code = 'card_receivable' and a.debits_posted_minor > a.credits_posted_minor
            """
        ).fetchall()
        settled = sum(_number(connection.execute("select core.settle_due(%s, %s)", pair).fetchone()) for pair in due)
        forgotten = _number(connection.execute("select ops.forget_idempotency_keys()").fetchone())
        sealed = seal(connection)
    return Maintenance(tuple(partitions), expired, settled, forgotten, sealed)


def _number(row: tuple[int, ...] | None) -> int:
    return 0 if row is None else row[0]
