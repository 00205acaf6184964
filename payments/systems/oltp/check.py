"""Whether the money in the operational store is right: invariants, each one query that returns what breaks it.

The live path (SQL functions) and the bulk path (COPY) must satisfy the same checks. They see one snapshot of the store,
so that traffic while they run does not look like a fault.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import Connection, errors, sql

from payments.errors import UsageError
from payments.systems.oltp.connection import connect

SCHEMAS = ("core", "ledger", "identity", "vault", "ops", "rules")


@dataclass(frozen=True)
class CheckResult:
    """One invariant: whether it holds, and how many rows it was asked of or which ones break it."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Invariant:
    """An invariant as a query with one text column, which names each thing that breaks it."""

    name: str
    violations: str


LEDGER_BALANCES = Invariant(
    "every ledger transaction has entries and balances per currency",
    """
    select e.ledger_transaction_id || ' ' || e.currency
    from ledger.entries as e
    group by e.merchant_id, e.ledger_transaction_id, e.currency
    having sum(case e.side when 'D' then e.amount_minor else -e.amount_minor end) <> 0
    union all
    select t.ledger_transaction_id
    from ledger.transactions as t
    where not exists (
        select from ledger.entries as e
        where e.merchant_id = t.merchant_id and e.ledger_transaction_id = t.ledger_transaction_id
    )
    """,
)

LEDGER_SUMS_TO_ZERO = Invariant(
    "the whole ledger sums to zero per currency",
    """
    select a.currency || ' is off by ' || sum(a.debits_posted_minor - a.credits_posted_minor)
    from ledger.accounts as a
    group by a.currency
    having sum(a.debits_posted_minor - a.credits_posted_minor) <> 0
    """,
)

ACCOUNT_TOTALS = Invariant(
    "the totals of every ledger account are the sums of its entries",
    """
    with
    posted as (
        select
            e.ledger_account_id,
            coalesce(sum(e.amount_minor) filter (where e.side = 'D'), 0) as debits,
            coalesce(sum(e.amount_minor) filter (where e.side = 'C'), 0) as credits,
            count(*) as entries
        from ledger.entries as e
        group by e.ledger_account_id
    )

    select a.ledger_account_id
    from ledger.accounts as a
    left join posted as p on a.ledger_account_id = p.ledger_account_id
    where
        a.debits_posted_minor <> coalesce(p.debits, 0)
        or a.credits_posted_minor <> coalesce(p.credits, 0)
        or a.entry_count <> coalesce(p.entries, 0)
    """,
)

ACCOUNT_NUMBERS = Invariant(
    "the entries of every ledger account are numbered without a gap",
    """
    select e.ledger_account_id
    from ledger.entries as e
    group by e.ledger_account_id
    having min(e.account_entry_no) <> 1 or max(e.account_entry_no) <> count(*)
    """,
)

RUNNING_BALANCES = Invariant(
    "the balance after every entry follows from the one before it, the last is the account's",
    """
    with
    running as (
        select
            e.ledger_account_id,
            e.account_entry_no,
            e.balance_after_minor,
            sum(case when e.side = a.normal_side then e.amount_minor else -e.amount_minor end) over (
                partition by e.ledger_account_id
                order by e.account_entry_no
            ) as expected,
            case a.normal_side
                when 'D' then a.debits_posted_minor - a.credits_posted_minor
                else a.credits_posted_minor - a.debits_posted_minor
            end as balance,
            e.account_entry_no = a.entry_count as is_last
        from ledger.entries as e
        inner join ledger.accounts as a on e.ledger_account_id = a.ledger_account_id
    )

    select r.ledger_account_id || ' entry ' || r.account_entry_no
    from running as r
    where r.balance_after_minor <> r.expected or (r.is_last and r.balance_after_minor <> r.balance)
    """,
)

REFUNDS_WITHIN_CAPTURED = Invariant(
    "no charge is refunded beyond what was captured, and its live refunds add up to what it says",
    """
    with
    live as (
        select
            r.merchant_id,
            r.charge_id,
            sum(r.amount_minor) as refunded,
            min(r.currency) as lowest_currency,
            max(r.currency) as highest_currency
        from core.refunds as r
        where r.status in ('pending', 'requires_action', 'succeeded')
        group by r.merchant_id, r.charge_id
    )

    select c.merchant_id || ' ' || c.charge_id
    from core.charges as c
    left join live as l on c.merchant_id = l.merchant_id and c.charge_id = l.charge_id
    where
        c.amount_refunded_minor > c.amount_captured_minor
        or c.amount_refunded_minor <> coalesce(l.refunded, 0)
        or l.lowest_currency <> c.currency
        or l.highest_currency <> c.currency
    """,
)

DISPUTES_WITHIN_CAPTURED = Invariant(
    "no dispute exceeds what was captured, and exactly the disputed charges say so",
    """
    with
    disputed as (
        select
            d.merchant_id,
            d.charge_id,
            max(d.amount_minor) as largest,
            min(d.currency) as lowest_currency,
            max(d.currency) as highest_currency
        from core.disputes as d
        group by d.merchant_id, d.charge_id
    )

    select c.merchant_id || ' ' || c.charge_id
    from core.charges as c
    left join disputed as d on c.merchant_id = d.merchant_id and c.charge_id = d.charge_id
    where
        c.is_disputed <> (d.charge_id is not null)
        or d.largest > c.amount_captured_minor
        or d.lowest_currency <> c.currency
        or d.highest_currency <> c.currency
    """,
)

INTENTS = Invariant(
    "every intent has at most one successful charge, of its currency, and received what was captured",
    """
    with
    paid as (
        select
            c.merchant_id,
            c.payment_intent_id,
            count(*) as successes,
            sum(c.amount_captured_minor) as captured,
            min(c.currency) as currency
        from core.charges as c
        where c.status = 'succeeded'
        group by c.merchant_id, c.payment_intent_id
    )

    select i.merchant_id || ' ' || i.payment_intent_id
    from core.payment_intents as i
    left join paid as p on i.merchant_id = p.merchant_id and i.payment_intent_id = p.payment_intent_id
    where
        coalesce(p.successes, 0) > 1
        or i.amount_received_minor <> coalesce(p.captured, 0)
        or p.currency <> i.currency
        or (i.status = 'succeeded') <> (p.successes is not null)
    """,
)

BALANCE_TRANSACTIONS = Invariant(
    "every movement of money has exactly one balance transaction, with its amount, fee and net",
    """
    with
    expected as (
        select merchant_id, 'charge' as type, charge_id as source_id, amount_captured_minor as amount_minor,
            null::bigint as fee_minor, currency
        from core.charges
        where status = 'succeeded'
        union all
        select merchant_id, 'refund', refund_id, -amount_minor, 0, currency
        from core.refunds
        union all
        select merchant_id, 'refund_failure', refund_id, amount_minor, 0, currency
        from core.refunds
        where status = 'failed'
        union all
        select merchant_id, 'dispute', dispute_id, -amount_minor, fee_minor, currency
        from core.disputes
        where status not like 'warning%'
        union all
        select merchant_id, 'dispute_reversal', dispute_id, amount_minor, 0, currency
        from core.disputes
        where status = 'won'
    )

    select coalesce(e.merchant_id, b.merchant_id) || ' ' || coalesce(e.type, b.type) || ' '
        || coalesce(e.source_id, b.source_id)
    from expected as e
    full join (
        select * from core.balance_transactions
        where type in ('charge', 'refund', 'refund_failure', 'dispute', 'dispute_reversal')
    ) as b
        on e.merchant_id = b.merchant_id and e.type = b.type and e.source_id = b.source_id
    where
        e.source_id is null
        or b.source_id is null
        or b.amount_minor <> e.amount_minor
        or b.fee_minor <> coalesce(e.fee_minor, b.fee_minor)
        or (b.type = 'charge' and b.fee_minor not between 0 and b.amount_minor)
        or b.net_minor <> b.amount_minor - b.fee_minor
        or b.currency <> e.currency
    """,
)

POSTINGS = Invariant(
    "every movement of a payment is posted once, with the legs that its kind demands",
    """
    with
    movements as (
        select
            case b.type
                when 'dispute_reversal' then 'dispute_won'
                when 'refund_failure' then 'refund_failed'
                else b.type
            end as kind,
            b.source_id,
            b.merchant_id,
            b.currency,
            abs(b.amount_minor) as amount,
            b.fee_minor as fee,
            abs(b.net_minor) as net
        from core.balance_transactions as b
        where b.type in ('refund', 'refund_failure', 'dispute', 'dispute_reversal')
        union all
        select
            'charge',
            b.source_id,
            b.merchant_id,
            b.currency,
            b.amount_minor,
            f.amount_minor,
            b.amount_minor - f.amount_minor
        from core.balance_transactions as b
        inner join core.balance_transaction_fees as f
            on
                b.merchant_id = f.merchant_id
                and b.balance_transaction_id = f.balance_transaction_id
                and f.type = 'processing_fee'
        where b.type = 'charge'
        union all
        select 'dispute_lost', d.dispute_id, d.merchant_id, d.currency, d.amount_minor, 0, d.amount_minor
        from core.disputes as d
        where d.status = 'lost'
        union all
        select
            'settlement', s.currency || ':' || s.day, s.merchant_id, s.currency, sum(b.amount_minor), sum(b.fee_minor),
            sum(b.net_minor)
        from core.settlements as s
        inner join core.balance_transactions as b
            on
                s.merchant_id = b.merchant_id
                and s.currency = b.currency
                and s.day = (b.created_at at time zone 'UTC')::date
                and b.type = 'charge'
        group by s.merchant_id, s.currency, s.day
    ),

    shapes (kind, side, code, part) as (
        values
        ('charge', 'D', 'card_receivable', 'amount'),
        ('charge', 'C', 'merchant_pending', 'net'),
        ('charge', 'C', 'fee_revenue', 'fee'),
        ('settlement', 'D', 'merchant_pending', 'net'),
        ('settlement', 'C', 'merchant_available', 'net'),
        ('settlement', 'D', 'bank', 'amount'),
        ('settlement', 'C', 'card_receivable', 'amount'),
        ('refund', 'D', 'merchant_available', 'amount'),
        ('refund', 'C', 'refund_clearing', 'amount'),
        ('refund_failed', 'C', 'merchant_available', 'amount'),
        ('dispute', 'D', 'merchant_available', 'net'),
        ('dispute', 'C', 'dispute_clearing', 'amount'),
        ('dispute', 'C', 'fee_revenue', 'fee'),
        ('dispute_won', 'D', 'dispute_clearing', 'amount'),
        ('dispute_won', 'C', 'merchant_available', 'amount'),
        ('dispute_lost', 'D', 'dispute_clearing', 'amount'),
        ('dispute_lost', 'C', 'bank', 'amount')
    ),

    expected as (
        select
            m.merchant_id,
            m.kind,
            m.source_id,
            s.code,
            m.currency,
            s.side,
            case s.part when 'amount' then m.amount when 'fee' then m.fee else m.net end as amount
        from movements as m
        inner join shapes as s on m.kind = s.kind
    ),

    posted as (
        select t.merchant_id, t.kind, t.source_id, a.code, e.currency, e.side, sum(e.amount_minor) as amount
        from ledger.entries as e
        inner join ledger.transactions as t
            on e.merchant_id = t.merchant_id and e.ledger_transaction_id = t.ledger_transaction_id
        inner join ledger.accounts as a on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
        where exists (select from shapes as s where s.kind = t.kind)
            -- The money of a failed refund comes back from wherever it was.
            and (t.kind <> 'refund_failed' or a.code = 'merchant_available')
        group by t.merchant_id, t.kind, t.source_id, a.code, e.currency, e.side
    ),

    differences as (
        select merchant_id, kind, source_id
        from (
            select *, 1 as expected from expected where amount <> 0
            union all
            select *, -1 from posted
        ) as both_sides
        group by merchant_id, kind, source_id, code, currency, side, amount
        having sum(expected) <> 0
    )

    select distinct merchant_id || ' ' || kind || ' ' || source_id from differences
    """,
)

MERCHANT_TOTALS = Invariant(
    "what every merchant owns in the ledger is the sum of its balance transactions, per currency",
    """
    with
    owned as (
        select a.merchant_id, a.currency, sum(a.credits_posted_minor - a.debits_posted_minor) as minor
        from ledger.accounts as a
        where a.code in ('merchant_pending', 'merchant_available')
        group by a.merchant_id, a.currency
    ),

    moved as (
        select b.merchant_id, b.currency, sum(b.net_minor) as minor
        from core.balance_transactions as b
        group by b.merchant_id, b.currency
    )

    select coalesce(o.merchant_id, m.merchant_id) || ' ' || coalesce(o.currency, m.currency)
    from owned as o
    full join moved as m on o.merchant_id = m.merchant_id and o.currency = m.currency
    where coalesce(o.minor, 0) <> coalesce(m.minor, 0)
    """,
)

CONSTRAINTS_VALIDATED = Invariant(
    "every constraint is validated, and no declared foreign key is missing",
    """
    select format('%I on %s', c.conname, c.conrelid::regclass)
    from pg_constraint as c
    inner join pg_namespace as n on c.connamespace = n.oid
    where n.nspname = any({schemas}) and not c.convalidated
    union all
    select format('%I on %s is missing', d.constraint_name, d.table_name)
    from rules.foreign_keys as d
    where not exists (
        select from pg_constraint as c
        where c.conname = d.constraint_name and c.conrelid = to_regclass(d.table_name) and c.contype = 'f'
    )
    """,
)

TRIGGERS_ENABLED = Invariant(
    "no trigger is disabled",
    """
    select format('%I on %s', t.tgname, t.tgrelid::regclass)
    from pg_trigger as t
    inner join pg_class as r on t.tgrelid = r.oid
    inner join pg_namespace as n on r.relnamespace = n.oid
    where n.nspname = any({schemas}) and t.tgenabled not in ('O', 'A')
    """,
)

INVARIANTS = (
    LEDGER_BALANCES,
    LEDGER_SUMS_TO_ZERO,
    ACCOUNT_TOTALS,
    ACCOUNT_NUMBERS,
    RUNNING_BALANCES,
    REFUNDS_WITHIN_CAPTURED,
    DISPUTES_WITHIN_CAPTURED,
    INTENTS,
    BALANCE_TRANSACTIONS,
    POSTINGS,
    MERCHANT_TOTALS,
    CONSTRAINTS_VALIDATED,
    TRIGGERS_ENABLED,
)
# What triggers watch row by row on the live path: a bulk load, which switches them off, asks it of all rows at once.
GUARDED_BY_TRIGGERS = (LEDGER_BALANCES, REFUNDS_WITHIN_CAPTURED, DISPUTES_WITHIN_CAPTURED)


def check() -> list[CheckResult]:
    """Ask every invariant of one snapshot of the operational store.

    Raises:
        UsageError: the store cannot be reached, or its migrations were not applied.
    """
    with connect() as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        connection.execute("set local work_mem = '128MB'")
        try:
            return ask(connection, INVARIANTS)
        except errors.UndefinedTable as error:
            raise UsageError("The operational store has no complete schema yet: run payments up.") from error


def ask(connection: Connection, invariants: Iterable[Invariant]) -> list[CheckResult]:
    """Ask invariants within the transaction of a connection."""
    return [_ask_one(connection, invariant) for invariant in invariants]


def _ask_one(connection: Connection, invariant: Invariant) -> CheckResult:
    violations = sql.SQL(invariant.violations).format(schemas=sql.Literal(list(SCHEMAS)))
    row = connection.execute(
        sql.SQL("select count(*), min(violation) from ({}) as found (violation)").format(violations)
    ).fetchone()
    count, first = (0, None) if row is None else row
    if count == 0:
        return CheckResult(invariant.name, True, "holds")
    return CheckResult(invariant.name, False, f"broken {count} times, first by {first}")
