with

days as (
    select * from {{ ref('agg_revenue_daily', v=2) }}
),

final as (
    select
        {{ surrogate_key(['revenue_on', 'merchant_key', 'currency']) }} as revenue_daily_key,
        revenue_on,
        merchant_key,
        currency,
        cast(sum(payment_count) as bigint) as payment_count,
        cast(sum(captured_count) as bigint) as captured_count,
        cast(sum(failed_count) as bigint) as failed_count,
        cast(sum(captured_amount_minor) as bigint) as captured_amount_minor,
        cast(sum(refunded_amount_minor) as bigint) as refunded_amount_minor,
        cast(sum(disputed_amount_minor) as bigint) as disputed_amount_minor,
        cast(sum(net_amount_minor) as bigint) as net_amount_minor,
        cast(sum(fee_minor) as bigint) as fee_minor,
        cast(sum(reporting_captured_amount_minor) as bigint) as reporting_captured_amount_minor,
        cast(sum(reporting_refunded_amount_minor) as bigint) as reporting_refunded_amount_minor,
        cast(sum(reporting_disputed_amount_minor) as bigint) as reporting_disputed_amount_minor
    from days
    group by revenue_on, merchant_key, currency
)

select * from final
