"""Payments and what is made of them (P1 to P5): amounts within amounts, one success, fees, payouts, versions."""

from payments.systems.oltp.invariants.invariant import Invariant

# Every table whose rows have a version, with the column that completes its key, and whether it has a status.
VERSIONED = {
    "core.merchants": ("merchant_id", True),
    "core.customers": ("customer_id", False),
    "core.payment_methods": ("payment_method_id", False),
    "core.payment_intents": ("payment_intent_id", True),
    "core.charges": ("charge_id", True),
    "core.refunds": ("refund_id", True),
    "core.disputes": ("dispute_id", True),
    "core.setup_intents": ("setup_intent_id", True),
    "core.reviews": ("review_id", False),
    "core.products": ("product_id", False),
    "core.prices": ("price_id", False),
    "core.coupons": ("coupon_id", False),
    "core.subscriptions": ("subscription_id", True),
    "core.subscription_items": ("subscription_item_id", False),
    "core.invoices": ("invoice_id", True),
    "core.checkout_sessions": ("checkout_session_id", True),
    "core.payouts": ("payout_id", True),
    "core.transfers": ("transfer_id", False),
    "core.topups": ("topup_id", True),
    "core.adjustments": ("adjustment_id", True),
}

REFUNDS_WITHIN_CAPTURED = Invariant(
    "P1 no charge is refunded beyond what was captured of it, and its live refunds add up to what it says",
    "core.charges",
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
        c.amount_refunded_minor not between 0 and c.amount_captured_minor
        or c.amount_captured_minor > c.amount_minor
        or c.amount_refunded_minor <> coalesce(l.refunded, 0)
        or l.lowest_currency <> c.currency
        or l.highest_currency <> c.currency
    """,
)

DISPUTES_WITHIN_CAPTURED = Invariant(
    "P1 no dispute exceeds what was captured, and exactly the disputed charges say so",
    "core.disputes",
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

RETURNED_WITHIN_CAPTURED = Invariant(
    "P1 refunds and disputes together return no more than was captured",
    "core.disputes",
    """
    select c.merchant_id || ' ' || c.charge_id
    from core.disputes as d
    inner join core.charges as c on d.merchant_id = c.merchant_id and d.charge_id = c.charge_id
    where d.status in ('needs_response', 'under_review', 'lost')
    group by c.merchant_id, c.charge_id
    having sum(d.amount_minor) + min(c.amount_refunded_minor) > min(c.amount_captured_minor)
    """,
)

INTENTS = Invariant(
    "P2 every intent has at most one successful charge, of its currency, and received what was captured",
    "core.payment_intents",
    """
    with
    attempted as (
        select
            c.merchant_id,
            c.payment_intent_id,
            count(*) filter (where c.status = 'succeeded') as successes,
            count(*) filter (where c.status = 'pending') as authorizations,
            sum(c.amount_captured_minor) as captured,
            coalesce(sum(c.amount_minor) filter (where c.status = 'pending'), 0) as capturable,
            min(c.currency) as lowest_currency,
            max(c.currency) as highest_currency
        from core.charges as c
        group by c.merchant_id, c.payment_intent_id
    )

    select i.merchant_id || ' ' || i.payment_intent_id
    from core.payment_intents as i
    left join attempted as a on i.merchant_id = a.merchant_id and i.payment_intent_id = a.payment_intent_id
    where
        coalesce(a.successes, 0) <> case i.status when 'succeeded' then 1 else 0 end
        -- A charge is pending while it is authorized, or while a bank account is being debited.
        or coalesce(a.authorizations, 0) <> case when i.status in ('requires_capture', 'processing') then 1 else 0 end
        or i.amount_received_minor <> coalesce(a.captured, 0)
        or i.amount_capturable_minor <> case i.status when 'requires_capture' then coalesce(a.capturable, 0) else 0 end
        or a.lowest_currency <> i.currency
        or a.highest_currency <> i.currency
    """,
)

FEES_ADD_UP = Invariant(
    "P3 the net of every balance transaction is its amount less its fee, and the fee the sum of its parts",
    "core.balance_transactions",
    """
    with
    parts as (
        select
            f.merchant_id,
            f.balance_transaction_id,
            sum(f.amount_minor) as fee,
            min(f.currency) as lowest_currency,
            max(f.currency) as highest_currency
        from core.balance_transaction_fees as f
        group by f.merchant_id, f.balance_transaction_id
    )

    select coalesce(b.merchant_id, p.merchant_id) || ' ' || coalesce(b.balance_transaction_id, p.balance_transaction_id)
    from core.balance_transactions as b
    full join parts as p
        on b.merchant_id = p.merchant_id and b.balance_transaction_id = p.balance_transaction_id
    where
        b.balance_transaction_id is null
        or b.net_minor <> b.amount_minor - b.fee_minor
        or b.fee_minor <> coalesce(p.fee, 0)
        or (b.type = 'charge' and b.fee_minor not between 0 and b.amount_minor)
        or p.lowest_currency <> b.currency
        or p.highest_currency <> b.currency
    """,
)

PAYOUTS = Invariant(
    "P4 an automatic payout is the sum of the balance transactions that it pays out",
    "core.payouts",
    """
    with
    paid_out as (
        select
            l.merchant_id,
            l.payout_id,
            sum(b.net_minor) as net,
            min(b.currency) as lowest_currency,
            max(b.currency) as highest_currency
        from core.payout_balance_transactions as l
        inner join core.balance_transactions as b
            on l.merchant_id = b.merchant_id and l.balance_transaction_id = b.balance_transaction_id
        group by l.merchant_id, l.payout_id
    )

    select p.merchant_id || ' ' || p.payout_id
    from core.payouts as p
    left join paid_out as o on p.merchant_id = o.merchant_id and p.payout_id = o.payout_id
    where
        p.is_automatic <> (o.payout_id is not null)
        or o.net <> p.amount_minor
        or o.lowest_currency <> p.currency
        or o.highest_currency <> p.currency
    """,
)

# Audited from its first version on, a row has one version more than updates; where the audit trail begins later, or an
# old month of it was retired, it has more. No event tells of a version that the row has not reached.
VERSIONS_GROW = Invariant(
    "P5 the version of every row counts its changes, and no event is ahead of it",
    "(select from ops.audit_log as a where a.operation in ('insert', 'update'))",
    """
    with
    facts as (
        select
            f.merchant_id,
            f.row_key,
            count(*) filter (where f.operation = 'update') as updates,
            bool_or(f.operation = 'insert') as is_whole,
            max(f.version) as version
        from (
            select a.merchant_id, a.row_key, a.operation, null::bigint
            from ops.audit_log as a
            where a.operation in ('insert', 'update') and a.table_name like 'core.%'
            union all
            select o.merchant_id, o.object_id, 'event', o.object_version
            from ops.outbox as o
        ) as f (merchant_id, row_key, operation, version)
        group by f.merchant_id, f.row_key
    )

    select o.table_name || ' ' || o.merchant_id || ' ' || o.row_key
    from ("""
    + " union all ".join(
        f"select '{table}', merchant_id, {key}, version from {table}" for table, (key, _) in VERSIONED.items()
    )
    + """) as o (table_name, merchant_id, row_key, version)
    inner join facts as f on o.merchant_id = f.merchant_id and o.row_key = f.row_key
    where o.version < 1 + f.updates or (f.is_whole and o.version > 1 + f.updates) or o.version < f.version
    """,
)

STATUS_CHANGES = Invariant(
    "P5 every status is where legal changes led it",
    "(select from ops.audit_log as a where a.operation = 'update' and a.changes ? 'status')",
    """
    with
    changes as (
        select
            a.merchant_id,
            a.table_name,
            a.row_key,
            a.changes -> 'status' ->> 0 as from_status,
            a.changes -> 'status' ->> 1 as to_status,
            lag(a.changes -> 'status' ->> 1) over in_order as status_before,
            lead(a.audit_id) over in_order is null as is_last
        from ops.audit_log as a
        where a.operation = 'update' and a.changes ? 'status'
        window in_order as (partition by a.merchant_id, a.table_name, a.row_key order by a.audit_id)
    )

    select c.table_name || ' ' || c.merchant_id || ' ' || c.row_key
    from changes as c
    left join rules.state_transitions as s
        on
            split_part(c.table_name, '.', 2) = s.object
            and c.from_status = s.from_status
            and c.to_status = s.to_status
    where s.object is null or c.status_before <> c.from_status
    union all
    select o.table_name || ' ' || o.merchant_id || ' ' || o.row_key
    from changes as c
    inner join ("""
    + " union all ".join(
        f"select '{table}', merchant_id, {key}, status from {table}"
        for table, (key, has_status) in VERSIONED.items()
        if has_status
    )
    + """) as o (table_name, merchant_id, row_key, status)
        on c.merchant_id = o.merchant_id and c.row_key = o.row_key and c.table_name = o.table_name
    where c.is_last and o.status <> c.to_status
    """,
)

INVOICE_LINES = Invariant(
    "every invoice is the sum of its lines, less its discount",
    "core.invoices",
    """
    with
    lines as (
        select
            l.merchant_id,
            l.invoice_id,
            sum(l.amount_minor) as amount,
            min(l.currency) as lowest_currency,
            max(l.currency) as highest_currency
        from core.invoice_lines as l
        group by l.merchant_id, l.invoice_id
    )

    select i.merchant_id || ' ' || i.invoice_id
    from core.invoices as i
    left join lines as l on i.merchant_id = l.merchant_id and i.invoice_id = l.invoice_id
    where
        i.subtotal_minor <> coalesce(l.amount, 0)
        or i.total_minor <> i.subtotal_minor - i.discount_minor
        or l.lowest_currency <> i.currency
        or l.highest_currency <> i.currency
    """,
)

INVOICES_SETTLED = Invariant(
    "every invoice was credited what its credit notes say and paid by a payment of what was left, and nothing beyond",
    "core.invoices",
    """
    with
    credited as (
        select n.merchant_id, n.invoice_id, sum(n.amount_minor) as amount
        from core.credit_notes as n
        where n.refund_id is null
        group by n.merchant_id, n.invoice_id
    )

    select i.merchant_id || ' ' || i.invoice_id
    from core.invoices as i
    left join credited as c on i.merchant_id = c.merchant_id and i.invoice_id = c.invoice_id
    left join core.payment_intents as p
        on i.merchant_id = p.merchant_id and i.payment_intent_id = p.payment_intent_id
    where
        i.amount_credited_minor <> coalesce(c.amount, 0)
        or i.amount_paid_minor + i.amount_credited_minor > i.total_minor
        or (i.status = 'paid' and i.amount_paid_minor + i.amount_credited_minor <> i.total_minor)
        or (
            i.amount_paid_minor > 0
            and (p.amount_received_minor, p.currency) is distinct from (i.amount_paid_minor, i.currency)
        )
    """,
)

CONVERSIONS = Invariant(
    "every conversion gives what its rate says, rounded down to whole minor units",
    "core.currency_conversions",
    """
    select c.merchant_id || ' ' || c.currency_conversion_id
    from core.currency_conversions as c
    inner join core.currencies as f on c.from_currency = f.currency
    inner join core.currencies as t on c.to_currency = t.currency
    where c.to_amount_minor <> floor(c.from_amount_minor * c.rate * 10::numeric ^ (t.exponent - f.exponent))
    """,
)
