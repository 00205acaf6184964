-- What was taken in the last minutes, and what looks like fraud in it, minute by minute?
-- Live models: the answer holds what has landed by now, without a build (`payments stream` lands as payments happen).
with

revenue as (
    select * from {{ ref('agg_revenue_by_minute') }}
),

fraud as (
    select * from {{ ref('agg_fraud_by_minute') }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

final as (
    select
        coalesce(revenue.minute_at, fraud.minute_at) as minute_at,
        coalesce(merchants.business_name, 'new since the last build') as business_name,
        coalesce(revenue.currency, fraud.currency) as currency,
        revenue.payment_count,
        revenue.failed_count,
        revenue.captured_amount_minor,
        revenue.refunded_amount_minor,
        fraud.risky_count,
        fraud.risky_amount_minor,
        fraud.warning_count,
        fraud.fraud_dispute_count
    from revenue
    full join fraud
        on revenue.revenue_by_minute_key = fraud.fraud_by_minute_key
    left join merchants
        on coalesce(revenue.merchant_key, fraud.merchant_key) = merchants.merchant_key
)

select * from final
order by minute_at desc, business_name asc, currency asc
