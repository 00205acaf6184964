"""The ledger in itself (L1 to L6): balanced, numbered, never below zero, unchanged, posted once, reversed exactly."""

from payments.systems.oltp.invariants.invariant import Invariant

LEDGER_BALANCES = Invariant(
    "L1 every posting has entries of its moment and balances per currency",
    "ledger.transactions",
    """
    with
    legs as (
        select
            e.merchant_id,
            e.ledger_transaction_id,
            e.currency,
            sum(case e.side when 'D' then e.amount_minor else -e.amount_minor end) as balance,
            min(e.posted_at) as first_at,
            max(e.posted_at) as last_at
        from ledger.entries as e
        group by e.merchant_id, e.ledger_transaction_id, e.currency
    )

    select coalesce(t.merchant_id, l.merchant_id) || ' ' || coalesce(t.ledger_transaction_id, l.ledger_transaction_id)
    from ledger.transactions as t
    full join legs as l on t.merchant_id = l.merchant_id and t.ledger_transaction_id = l.ledger_transaction_id
    where
        t.ledger_transaction_id is null
        or l.ledger_transaction_id is null
        or l.balance <> 0
        or l.first_at <> t.posted_at
        or l.last_at <> t.posted_at
    """,
)

BOOKS_SUM_TO_ZERO = Invariant(
    "L1 every book sums to zero per currency, in what is posted and in what is pending",
    "ledger.accounts",
    """
    select a.merchant_id || ' ' || a.currency
    from ledger.accounts as a
    group by a.merchant_id, a.currency
    having sum(a.debits_posted_minor) <> sum(a.credits_posted_minor)
        or sum(a.debits_pending_minor) <> sum(a.credits_pending_minor)
    """,
)

PENDING_IS_HELD = Invariant(
    "L1 what accounts have pending is what holds reserve",
    "ledger.holds",
    """
    with
    held as (
        select s.merchant_id, s.ledger_account_id, sum(s.debit) as debits, sum(s.credit) as credits
        from (
            select h.merchant_id, h.debit_account_id, h.amount_minor, 0
            from ledger.holds as h
            where h.status = 'pending'
            union all
            select h.merchant_id, h.credit_account_id, 0, h.amount_minor
            from ledger.holds as h
            where h.status = 'pending'
        ) as s (merchant_id, ledger_account_id, debit, credit)
        group by s.merchant_id, s.ledger_account_id
    )

    select coalesce(a.ledger_account_id, h.ledger_account_id)
    from ledger.accounts as a
    full join held as h on a.merchant_id = h.merchant_id and a.ledger_account_id = h.ledger_account_id
    where a.debits_pending_minor is distinct from coalesce(h.debits, 0)
        or a.credits_pending_minor is distinct from coalesce(h.credits, 0)
    """,
)

ACCOUNTS_FOLLOW_ENTRIES = Invariant(
    "L2 account totals are the sums of their entries, which are numbered without a gap and carry running balances",
    "ledger.entries",
    """
    with
    -- The balance before an entry is the one after the entry before it: by induction each is the sum so far.
    steps as (
        select
            e.ledger_account_id,
            e.side,
            e.amount_minor,
            e.account_entry_no = lag(e.account_entry_no, 1, 0::bigint) over in_account + 1 as is_next,
            e.balance_after_minor
            = lag(e.balance_after_minor, 1, 0::bigint) over in_account
            + case when e.side = a.normal_side then e.amount_minor else -e.amount_minor end as is_running
        from ledger.entries as e
        inner join ledger.accounts as a on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
        -- Any order of the accounts will do: bytes compare faster than text.
        window in_account as (partition by e.ledger_account_id collate "C" order by e.account_entry_no)
    ),

    posted as (
        select
            s.ledger_account_id,
            count(*) as entries,
            coalesce(sum(s.amount_minor) filter (where s.side = 'D'), 0) as debits,
            coalesce(sum(s.amount_minor) filter (where s.side = 'C'), 0) as credits,
            bool_and(s.is_next) as is_gapless,
            bool_and(s.is_running) as is_running
        from steps as s
        group by s.ledger_account_id
    )

    select a.ledger_account_id || case
        when not p.is_gapless then ' has a gap'
        when not p.is_running then ' has a wrong running balance'
        else ' has wrong totals'
    end
    from ledger.accounts as a
    left join posted as p on a.ledger_account_id = p.ledger_account_id
    where
        a.entry_count <> coalesce(p.entries, 0)
        or a.debits_posted_minor <> coalesce(p.debits, 0)
        or a.credits_posted_minor <> coalesce(p.credits, 0)
        or not p.is_gapless
        or not p.is_running
    """,
)

PROTECTED_ACCOUNTS = Invariant(
    "L3 protected accounts are, and were after every posting, never below zero, counting what is pending",
    "(select from ledger.accounts as a where a.is_protected)",
    """
    select a.ledger_account_id
    from ledger.accounts as a
    inner join ledger.account_codes as c on a.code = c.code
    where c.is_protected
        and case c.normal_side
            when 'D' then a.debits_posted_minor - a.credits_posted_minor - a.credits_pending_minor
            else a.credits_posted_minor - a.debits_posted_minor - a.debits_pending_minor
        end < 0
    union all
    select e.ledger_account_id || ' entry ' || e.account_entry_no
    from ledger.entries as e
    inner join ledger.accounts as a on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
    inner join ledger.account_codes as c on a.code = c.code and c.is_protected
    where e.balance_after_minor < 0
        -- Within one posting only the last entry counts.
        and not exists (
            select from ledger.entries as n
            where n.merchant_id = e.merchant_id
                and n.ledger_account_id = e.ledger_account_id
                and n.account_entry_no = e.account_entry_no + 1
                and n.ledger_transaction_id = e.ledger_transaction_id
        )
    """,
)

CHAIN_VERIFIES = Invariant(
    "L4 the hash chain over the postings verifies",
    "(select from ledger.transactions as t where t.recorded_xid < (select max(s.to_xid) from ledger.seals as s))",
    "select 'seal ' || b.seal_no from ledger.broken_seals() as b",
)

CHAIN_IS_WHOLE = Invariant(
    "L4 every seal that the audit trail recorded stands, and the last one is recorded",
    "ledger.seals",
    """
    with
    recorded as (
        select a.row_key::bigint as seal_no, a.changes ->> 'hash' as seal_hash
        from ops.audit_log as a
        where a.table_name = 'ledger.seals' and a.operation = 'seal'
    )

    select 'seal ' || r.seal_no || ' is gone or another'
    from recorded as r
    left join ledger.seals as s on r.seal_no = s.seal_no
    where encode(s.seal_hash, 'hex') is distinct from r.seal_hash
    union all
    select 'seal ' || h.seal_no || ' is not recorded'
    from (select max(s.seal_no) as seal_no from ledger.seals as s) as h
    where h.seal_no is not null and not exists (select from recorded as r where r.seal_no = h.seal_no)
    """,
)

CLOSED_PERIODS = Invariant(
    "L4 nothing was posted into a month after it was closed",
    "ledger.closed_periods",
    """
    select t.merchant_id || ' ' || t.ledger_transaction_id
    from ledger.closed_periods as p
    inner join ledger.transactions as t
        on
            t.posted_at >= p.period::timestamp at time zone 'UTC'
            and t.posted_at < (p.period + interval '1 month') at time zone 'UTC'
            and t.recorded_at > p.closed_at
    """,
)

POSTED_ONCE = Invariant(
    "L5 there is at most one posting for each kind and source",
    "ledger.transactions",
    """
    select t.merchant_id || ' ' || t.kind || ' ' || t.source_id
    from ledger.transactions as t
    group by t.merchant_id, t.kind, t.source_id
    having count(*) > 1
    """,
)

AUTHORIZATIONS = Invariant(
    "L5 every authorization has one hold, which ended once, as its charge did",
    "ledger.holds",
    """
    with
    authorized as (
        select
            c.merchant_id,
            c.charge_id,
            c.amount_minor,
            c.amount_captured_minor,
            c.currency,
            case
                when c.status = 'pending' then 'pending'
                when c.status = 'succeeded' then 'posted'
                when c.failure_code = 'authorization_expired' then 'expired'
                else 'voided'
            end as status
        from core.charges as c
        inner join core.payment_intents as i
            on c.merchant_id = i.merchant_id and c.payment_intent_id = i.payment_intent_id
        where i.capture_method = 'manual'
            and (c.status <> 'failed' or c.failure_code in ('authorization_expired', 'authorization_voided'))
    )

    select coalesce(a.merchant_id, h.merchant_id) || ' ' || coalesce(a.charge_id, h.source_id)
    from authorized as a
    full join ledger.holds as h on a.merchant_id = h.merchant_id and a.charge_id = h.source_id
    where
        (h.amount_minor, h.posted_minor, h.currency, h.status)
        is distinct from (a.amount_minor, a.amount_captured_minor, a.currency, a.status)
    """,
)

REVERSALS = Invariant(
    "L6 every reversal is the exact opposite of one posting, once",
    "(select from ledger.transactions as t where t.kind = 'reversal')",
    """
    with
    reversals as (
        select t.merchant_id, t.ledger_transaction_id as reversal_id, t.source_id as reversed_id
        from ledger.transactions as t
        where t.kind = 'reversal'
    ),

    -- Both sides of each pair, account by account: every sum must be nothing.
    legs as (
        select r.merchant_id, r.reversed_id, e.ledger_account_id, e.side, e.amount_minor
        from reversals as r
        inner join ledger.entries as e
            on r.merchant_id = e.merchant_id and r.reversal_id = e.ledger_transaction_id
        union all
        select r.merchant_id, r.reversed_id, e.ledger_account_id, e.side, e.amount_minor
        from reversals as r
        inner join ledger.entries as e
            on r.merchant_id = e.merchant_id and r.reversed_id = e.ledger_transaction_id
    )

    select l.merchant_id || ' ' || l.reversed_id || ' is not reversed exactly'
    from legs as l
    group by l.merchant_id, l.reversed_id, l.ledger_account_id
    having sum(case l.side when 'D' then l.amount_minor else -l.amount_minor end) <> 0
    union all
    select r.merchant_id || ' ' || r.reversed_id || ' cannot be reversed'
    from reversals as r
    left join ledger.transactions as t on r.merchant_id = t.merchant_id and r.reversed_id = t.ledger_transaction_id
    where t.kind is null or t.kind = 'reversal'
    union all
    select r.merchant_id || ' ' || r.reversed_id || ' is reversed more than once'
    from reversals as r
    group by r.merchant_id, r.reversed_id
    having count(*) > 1
    """,
)
