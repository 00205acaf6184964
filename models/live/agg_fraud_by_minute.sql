{%- set after = sequence_built() -%}
with

live_moment as (
    select * from {{ ref('live_moment') }}
),

payments as (
    select * from {{ ref('fct_payments_live') }}
),

warnings as (
    {{ current_rows(
        'early_fraud_warnings', ['merchant_id', 'early_fraud_warning_id'], ['charge_id', 'created_at'], after
    ) }}
),

disputes as (
    {{ current_rows('disputes', ['merchant_id', 'dispute_id'], [
        'charge_id', 'currency', 'status', 'reason', 'amount_minor', 'created_at',
    ], after) }}
),

-- A payment counts when it was made, a warning when it came, a dispute when it was opened.
signals as (
    select
        date_trunc('minute', payments.paid_at) as minute_at,
        payments.merchant_key,
        payments.currency,
        1 as payment_count,
        payments.amount_minor,
        case when payments.anomaly_score >= 0.9 then 1 else 0 end as risky_count,
        case when payments.anomaly_score >= 0.9 then payments.amount_minor else 0 end as risky_amount_minor,
        0 as warning_count,
        0 as warned_amount_minor,
        0 as fraud_dispute_count,
        0 as fraud_disputed_amount_minor
    from payments
    cross join live_moment
    where {{ is_recent('payments.paid_at') }}

    union all

    select
        date_trunc('minute', warnings.created_at) as minute_at,
        payments.merchant_key,
        payments.currency,
        0 as payment_count,
        0 as amount_minor,
        0 as risky_count,
        0 as risky_amount_minor,
        1 as warning_count,
        payments.amount_minor as warned_amount_minor,
        0 as fraud_dispute_count,
        0 as fraud_disputed_amount_minor
    from warnings
    cross join live_moment
    inner join payments
        on
            warnings.merchant_id = payments.merchant_id
            and warnings.charge_id = payments.payment_id
            and payments.source = 'oltp'
    where {{ is_recent('warnings.created_at') }}

    union all

    select
        date_trunc('minute', disputes.created_at) as minute_at,
        {{ surrogate_key(['disputes.merchant_id']) }} as merchant_key,
        disputes.currency,
        0 as payment_count,
        0 as amount_minor,
        0 as risky_count,
        0 as risky_amount_minor,
        0 as warning_count,
        0 as warned_amount_minor,
        1 as fraud_dispute_count,
        disputes.amount_minor as fraud_disputed_amount_minor
    from disputes
    cross join live_moment
    where
        {{ is_recent('disputes.created_at') }}
        and disputes.reason = 'fraudulent'
        and disputes.status not in ('warning_needs_response', 'warning_under_review', 'warning_closed', 'prevented')
),

final as (
    {{ sums_by_minute('signals', 'fraud_by_minute_key', [
        'payment_count', 'amount_minor', 'risky_count', 'risky_amount_minor', 'warning_count',
        'warned_amount_minor', 'fraud_dispute_count', 'fraud_disputed_amount_minor',
    ]) }}
)

select * from final
