"""Payments against the ledger: every movement is in both, once and alike; clearing accounts have their objects."""

from payments.systems.oltp.invariants.invariant import Invariant

# What was charged by merchant, currency and day: the days are few, the charges are many.
_WITH_CHARGED_BY_DAY = """
    with
    charged as (
        select
            b.merchant_id,
            b.currency,
            (b.created_at at time zone 'UTC')::date as day,
            sum(b.amount_minor) as amount,
            sum(b.net_minor) as net
        from core.balance_transactions as b
        where b.type = 'charge'
        group by b.merchant_id, b.currency, day
    )
"""

BALANCE_TRANSACTIONS = Invariant(
    "every movement of money has exactly one balance transaction, with its amount and fee",
    "core.balance_transactions",
    """
    with
    expected (merchant_id, type, source_id, amount_minor, fee_minor, currency) as (
        select merchant_id, 'charge', charge_id, amount_captured_minor, null::bigint, currency
        from core.charges
        where status = 'succeeded'
        union all
        select merchant_id, 'refund', refund_id, -amount_minor, 0, currency
        from core.refunds
        union all
        select merchant_id, 'refund_failure', refund_id, amount_minor, 0, currency
        from core.refunds
        where status in ('failed', 'canceled')
        union all
        select merchant_id, 'dispute', dispute_id, -amount_minor, fee_minor, currency
        from core.disputes
        where status in ('needs_response', 'under_review', 'won', 'lost')
        union all
        select merchant_id, 'dispute_reversal', dispute_id, amount_minor, 0, currency
        from core.disputes
        where status = 'won'
        union all
        select application_merchant_id, 'application_fee', charge_id, amount_minor, 0, currency
        from core.application_fees
        union all
        select merchant_id, 'payout', payout_id, -amount_minor, 0, currency
        from core.payouts
        union all
        select merchant_id, 'payout_failure', payout_id, amount_minor, 0, currency
        from core.payouts
        where status in ('failed', 'canceled')
        union all
        select merchant_id, 'transfer', transfer_id, -amount_minor, 0, currency
        from core.transfers
        union all
        select destination_merchant_id, 'transfer_in', transfer_id, amount_minor, 0, currency
        from core.transfers
        union all
        select merchant_id, 'reversal', transfer_id, amount_minor, 0, currency
        from core.transfers
        where amount_reversed_minor > 0
        union all
        select destination_merchant_id, 'reversal', transfer_id, -amount_minor, 0, currency
        from core.transfers
        where amount_reversed_minor > 0
        union all
        select merchant_id, 'topup', topup_id, amount_minor, 0, currency
        from core.topups
        where status in ('succeeded', 'reversed')
        union all
        select merchant_id, 'reversal', topup_id, -amount_minor, 0, currency
        from core.topups
        where status = 'reversed'
        union all
        select merchant_id, 'conversion_out', currency_conversion_id, -from_amount_minor, 0, from_currency
        from core.currency_conversions
        union all
        select merchant_id, 'conversion_in', currency_conversion_id, to_amount_minor, fee_minor, to_currency
        from core.currency_conversions
        union all
        select merchant_id, 'adjustment', adjustment_id, amount_minor, 0, currency
        from core.adjustments
        where status = 'approved'
    )

    select coalesce(e.merchant_id, b.merchant_id) || ' ' || coalesce(e.type, b.type) || ' '
        || coalesce(e.source_id, b.source_id)
    from expected as e
    full join core.balance_transactions as b
        on e.merchant_id = b.merchant_id and e.type = b.type and e.source_id = b.source_id
    where
        e.source_id is null
        or b.source_id is null
        or b.amount_minor <> e.amount_minor
        or b.fee_minor <> e.fee_minor
        or b.currency <> e.currency
    """,
)

# A movement brings up to three amounts, and each kind of posting says on which account and side each of them stands.
POSTINGS = Invariant(
    "every movement of money is posted once, with the legs that its kind demands",
    "ledger.entries",
    """
    with
    movements (merchant_id, kind, source_id, currency, amount, fee) as (
        -- The application's part of the fee has a posting of its own.
        select b.merchant_id, 'charge', b.source_id, b.currency, b.amount_minor,
            b.fee_minor - coalesce(a.amount_minor, 0)
        from core.balance_transactions as b
        left join core.application_fees as a on b.merchant_id = a.merchant_id and b.source_id = a.charge_id
        where b.type = 'charge'
        union all
        select merchant_id, 'application_fee', charge_id, currency, amount_minor, 0
        from core.application_fees
        union all
        select application_merchant_id, 'application_fee_in', charge_id, currency, amount_minor, 0
        from core.application_fees
        union all
        select merchant_id, 'settlement', currency || ':' || day, currency, amount_minor, amount_minor - net_minor
        from core.settlements
        union all
        select merchant_id, 'refund', refund_id, currency, amount_minor, 0
        from core.refunds
        union all
        select merchant_id, 'refund_settled', refund_id, currency, amount_minor, 0
        from core.refunds
        where status = 'succeeded'
        union all
        select merchant_id, 'dispute', dispute_id, currency, amount_minor, fee_minor
        from core.disputes
        where status in ('needs_response', 'under_review', 'won', 'lost')
        union all
        select merchant_id, 'dispute_' || status, dispute_id, currency, amount_minor, 0
        from core.disputes
        where status in ('won', 'lost')
        union all
        select merchant_id, 'payout', payout_id, currency, amount_minor, 0
        from core.payouts
        union all
        select merchant_id, 'payout_paid', payout_id, currency, amount_minor, 0
        from core.payouts
        where status = 'paid'
        union all
        -- What came back had either not arrived yet, or had: then its arrival is posted too.
        select r.merchant_id, r.kind || case when t.kind is null then '_failed' else '_returned' end, r.source_id,
            r.currency, r.amount_minor, 0
        from (
            select merchant_id, 'refund', 'refund_settled', refund_id, currency, amount_minor
            from core.refunds
            where status in ('failed', 'canceled')
            union all
            select merchant_id, 'payout', 'payout_paid', payout_id, currency, amount_minor
            from core.payouts
            where status in ('failed', 'canceled')
        ) as r (merchant_id, kind, arrival, source_id, currency, amount_minor)
        left join ledger.transactions as t
            on r.merchant_id = t.merchant_id and r.arrival = t.kind and r.source_id = t.source_id
        union all
        select merchant_id, 'transfer', transfer_id, currency, amount_minor, 0
        from core.transfers
        union all
        select destination_merchant_id, 'transfer_in', transfer_id, currency, amount_minor, 0
        from core.transfers
        union all
        select merchant_id, 'topup', topup_id, currency, amount_minor, 0
        from core.topups
        where status in ('succeeded', 'reversed')
        union all
        select merchant_id, 'fx_from', currency_conversion_id, from_currency, from_amount_minor, 0
        from core.currency_conversions
        union all
        select merchant_id, 'fx_to', currency_conversion_id, to_currency, to_amount_minor, fee_minor
        from core.currency_conversions
        union all
        select merchant_id, 'invoice', invoice_id, currency, total_minor, 0
        from core.invoices
        where status <> 'draft'
        union all
        select merchant_id, 'invoice_settled', invoice_id, currency,
            case status when 'void' then total_minor - amount_credited_minor else amount_paid_minor end, 0
        from core.invoices
        union all
        select merchant_id, 'invoice_settled', credit_note_id, currency, amount_minor, 0
        from core.credit_notes
        where refund_id is null
        union all
        -- A leg below zero stands on the other side.
        select merchant_id, 'adjustment', adjustment_id, currency, amount_minor, 0
        from core.adjustments
        where status = 'approved'
        union all
        select r.merchant_id, r.kind || '_reversal', t.ledger_transaction_id, r.currency, r.amount_minor, 0
        from (
            select merchant_id, 'transfer', transfer_id, currency, amount_minor
            from core.transfers
            where amount_reversed_minor > 0
            union all
            select destination_merchant_id, 'transfer_in', transfer_id, currency, amount_minor
            from core.transfers
            where amount_reversed_minor > 0
            union all
            select merchant_id, 'topup', topup_id, currency, amount_minor
            from core.topups
            where status = 'reversed'
        ) as r (merchant_id, kind, source_id, currency, amount_minor)
        left join ledger.transactions as t
            on r.merchant_id = t.merchant_id and r.kind = t.kind and r.source_id = t.source_id
    ),

    -- The kind of a movement, the kind of its posting, and its legs.
    shapes (movement, kind, code, side, part) as (
        values
        ('charge', 'charge', 'card_receivable', 'D', 'amount'),
        ('charge', 'charge', 'merchant_pending', 'C', 'net'),
        ('charge', 'charge', 'fee_revenue', 'C', 'fee'),
        ('application_fee', 'application_fee', 'merchant_pending', 'D', 'amount'),
        ('application_fee', 'application_fee', 'transfer_clearing', 'C', 'amount'),
        ('application_fee_in', 'application_fee_in', 'transfer_clearing', 'D', 'amount'),
        ('application_fee_in', 'application_fee_in', 'merchant_available', 'C', 'amount'),
        ('settlement', 'settlement', 'bank', 'D', 'amount'),
        ('settlement', 'settlement', 'card_receivable', 'C', 'amount'),
        ('settlement', 'settlement', 'merchant_pending', 'D', 'net'),
        ('settlement', 'settlement', 'merchant_available', 'C', 'net'),
        ('refund', 'refund', 'merchant_available', 'D', 'amount'),
        ('refund', 'refund', 'refund_clearing', 'C', 'amount'),
        ('refund_settled', 'refund_settled', 'refund_clearing', 'D', 'amount'),
        ('refund_settled', 'refund_settled', 'bank', 'C', 'amount'),
        ('refund_failed', 'refund_failed', 'refund_clearing', 'D', 'amount'),
        ('refund_failed', 'refund_failed', 'merchant_available', 'C', 'amount'),
        ('refund_returned', 'refund_settled', 'refund_clearing', 'D', 'amount'),
        ('refund_returned', 'refund_settled', 'bank', 'C', 'amount'),
        ('refund_returned', 'refund_failed', 'bank', 'D', 'amount'),
        ('refund_returned', 'refund_failed', 'merchant_available', 'C', 'amount'),
        ('dispute', 'dispute', 'merchant_available', 'D', 'sum'),
        ('dispute', 'dispute', 'dispute_clearing', 'C', 'amount'),
        ('dispute', 'dispute', 'fee_revenue', 'C', 'fee'),
        ('dispute_won', 'dispute_won', 'dispute_clearing', 'D', 'amount'),
        ('dispute_won', 'dispute_won', 'merchant_available', 'C', 'amount'),
        ('dispute_lost', 'dispute_lost', 'dispute_clearing', 'D', 'amount'),
        ('dispute_lost', 'dispute_lost', 'bank', 'C', 'amount'),
        ('payout', 'payout', 'merchant_available', 'D', 'amount'),
        ('payout', 'payout', 'payout_in_transit', 'C', 'amount'),
        ('payout_paid', 'payout_paid', 'payout_in_transit', 'D', 'amount'),
        ('payout_paid', 'payout_paid', 'bank', 'C', 'amount'),
        ('payout_failed', 'payout_failed', 'payout_in_transit', 'D', 'amount'),
        ('payout_failed', 'payout_failed', 'merchant_available', 'C', 'amount'),
        ('payout_returned', 'payout_paid', 'payout_in_transit', 'D', 'amount'),
        ('payout_returned', 'payout_paid', 'bank', 'C', 'amount'),
        ('payout_returned', 'payout_failed', 'bank', 'D', 'amount'),
        ('payout_returned', 'payout_failed', 'merchant_available', 'C', 'amount'),
        ('transfer', 'transfer', 'merchant_available', 'D', 'amount'),
        ('transfer', 'transfer', 'transfer_clearing', 'C', 'amount'),
        ('transfer_in', 'transfer_in', 'transfer_clearing', 'D', 'amount'),
        ('transfer_in', 'transfer_in', 'merchant_available', 'C', 'amount'),
        ('topup', 'topup', 'bank', 'D', 'amount'),
        ('topup', 'topup', 'merchant_available', 'C', 'amount'),
        ('fx_from', 'fx', 'merchant_available', 'D', 'amount'),
        ('fx_from', 'fx', 'fx_liquidity', 'C', 'amount'),
        ('fx_to', 'fx', 'fx_liquidity', 'D', 'amount'),
        ('fx_to', 'fx', 'merchant_available', 'C', 'net'),
        ('fx_to', 'fx', 'fee_revenue', 'C', 'fee'),
        ('invoice', 'invoice', 'invoice_receivable', 'D', 'amount'),
        ('invoice', 'invoice', 'invoice_clearing', 'C', 'amount'),
        ('invoice_settled', 'invoice_settled', 'invoice_clearing', 'D', 'amount'),
        ('invoice_settled', 'invoice_settled', 'invoice_receivable', 'C', 'amount'),
        ('adjustment', 'adjustment', 'suspense', 'D', 'amount'),
        ('adjustment', 'adjustment', 'merchant_available', 'C', 'amount'),
        ('transfer_reversal', 'reversal', 'transfer_clearing', 'D', 'amount'),
        ('transfer_reversal', 'reversal', 'merchant_available', 'C', 'amount'),
        ('transfer_in_reversal', 'reversal', 'merchant_available', 'D', 'amount'),
        ('transfer_in_reversal', 'reversal', 'transfer_clearing', 'C', 'amount'),
        ('topup_reversal', 'reversal', 'merchant_available', 'D', 'amount'),
        ('topup_reversal', 'reversal', 'bank', 'C', 'amount')
    ),

    -- Debits count up and credits down; buckets of an account count together.
    legs (merchant_id, kind, source_id, code, currency, is_expected, amount) as (
        select
            m.merchant_id,
            s.kind,
            m.source_id,
            s.code,
            m.currency,
            1,
            case s.side when 'D' then 1 else -1 end * case s.part
                when 'amount' then m.amount
                when 'fee' then m.fee
                when 'net' then m.amount - m.fee
                else m.amount + m.fee
            end
        from movements as m
        inner join shapes as s on m.kind = s.movement
        union all
        select
            e.merchant_id,
            t.kind,
            t.source_id,
            a.code,
            e.currency,
            0,
            case e.side when 'D' then -e.amount_minor else e.amount_minor end
        from ledger.entries as e
        inner join ledger.transactions as t
            on e.merchant_id = t.merchant_id and e.ledger_transaction_id = t.ledger_transaction_id
        inner join ledger.accounts as a on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
    )

    select distinct l.merchant_id || ' ' || l.kind || ' ' || l.source_id
    from legs as l
    group by l.merchant_id, l.kind, l.source_id, l.code, l.currency
    having sum(l.amount) <> 0
    """,
)

SETTLEMENTS = Invariant(
    "every settlement is the sum of the charges of its day",
    "core.settlements",
    _WITH_CHARGED_BY_DAY
    + """
    select s.merchant_id || ' ' || s.currency || ' ' || s.day
    from core.settlements as s
    left join charged as c on s.merchant_id = c.merchant_id and s.currency = c.currency and s.day = c.day
    where (c.amount, c.net) is distinct from (s.amount_minor::numeric, s.net_minor::numeric)
    """,
)

CLEARING = Invariant(
    "every clearing account holds what its open objects are about, and transfers clear to zero over all books",
    "(select from ledger.accounts as a inner join ledger.account_codes as c on a.code = c.code and c.is_clearing)",
    _WITH_CHARGED_BY_DAY
    + """,

    unsettled as (
        select c.merchant_id, c.currency, c.amount, c.net
        from charged as c
        where not exists (
            select from core.settlements as s
            where s.merchant_id = c.merchant_id and s.currency = c.currency and s.day = c.day
        )
    ),

    amounts (merchant_id, code, currency, amount) as (
        select u.merchant_id, 'card_receivable', u.currency, u.amount
        from unsettled as u
        union all
        select u.merchant_id, 'merchant_pending', u.currency, u.net
        from unsettled as u
        union all
        select r.merchant_id, 'refund_clearing', r.currency, r.amount_minor
        from core.refunds as r
        where r.status in ('pending', 'requires_action')
        union all
        select d.merchant_id, 'dispute_clearing', d.currency, d.amount_minor
        from core.disputes as d
        where d.status in ('needs_response', 'under_review')
        union all
        select p.merchant_id, 'payout_in_transit', p.currency, p.amount_minor
        from core.payouts as p
        where p.status in ('pending', 'in_transit')
        union all
        select i.merchant_id, c.code, i.currency, i.total_minor - i.amount_paid_minor - i.amount_credited_minor
        from core.invoices as i
        cross join (values ('invoice_receivable'), ('invoice_clearing')) as c (code)
        where i.status in ('open', 'uncollectible')
        union all
        select
            a.merchant_id,
            a.code,
            a.currency,
            case a.normal_side when 'D' then 1 else -1 end * (a.credits_posted_minor - a.debits_posted_minor)
        from ledger.accounts as a
        inner join ledger.account_codes as c on a.code = c.code
        where c.is_clearing and a.code <> 'transfer_clearing'
    )

    select a.merchant_id || ' ' || a.code || ' ' || a.currency
    from amounts as a
    group by a.merchant_id, a.code, a.currency
    having sum(a.amount) <> 0
    union all
    select 'transfer_clearing ' || a.currency
    from ledger.accounts as a
    where a.code = 'transfer_clearing'
    group by a.currency
    having sum(a.debits_posted_minor) <> sum(a.credits_posted_minor)
    """,
)

MERCHANT_TOTALS = Invariant(
    "what every merchant owns in the ledger is the sum of its balance transactions, per currency",
    "core.merchants",
    """
    with
    owned as (
        select a.merchant_id, a.currency, sum(a.credits_posted_minor - a.debits_posted_minor) as minor
        from ledger.accounts as a
        inner join ledger.account_codes as c on a.code = c.code
        where c.is_merchants
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
