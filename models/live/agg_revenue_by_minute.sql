{%- set after = sequence_built() -%}
with

live_moment as (
    select * from {{ ref('live_moment') }}
),

payments as (
    select * from {{ ref('fct_payments_live') }}
),

refunds as (
    {{ current_rows(
        'refunds', ['merchant_id', 'refund_id'], ['currency', 'status', 'amount_minor', 'created_at'], after
    ) }}
),

-- As in agg_revenue_daily: a payment counts when it was made, a refund when it was given.
movements as (
    select
        date_trunc('minute', payments.paid_at) as minute_at,
        payments.merchant_key,
        payments.currency,
        1 as payment_count,
        case when payments.status not in ('failed', 'pending') then 1 else 0 end as captured_count,
        case when payments.status = 'failed' then 1 else 0 end as failed_count,
        payments.captured_amount_minor,
        0 as refunded_amount_minor,
        payments.fee_minor,
        payments.reporting_captured_amount_minor
    from payments
    cross join live_moment
    where {{ is_recent('payments.paid_at') }}

    union all

    select
        date_trunc('minute', refunds.created_at) as minute_at,
        {{ surrogate_key(['refunds.merchant_id']) }} as merchant_key,
        refunds.currency,
        0 as payment_count,
        0 as captured_count,
        0 as failed_count,
        0 as captured_amount_minor,
        refunds.amount_minor as refunded_amount_minor,
        0 as fee_minor,
        cast(null as bigint) as reporting_captured_amount_minor
    from refunds
    cross join live_moment
    where
        {{ is_recent('refunds.created_at') }}
        and refunds.status not in ('failed', 'canceled')
),

final as (
    {{ sums_by_minute('movements', 'revenue_by_minute_key', [
        'payment_count', 'captured_count', 'failed_count', 'captured_amount_minor', 'refunded_amount_minor',
        'fee_minor', 'reporting_captured_amount_minor',
    ]) }}
)

select * from final
