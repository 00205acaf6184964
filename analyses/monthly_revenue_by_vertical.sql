-- How does captured revenue develop, month by month, in each line of business?
-- In the reporting currency, at the book rate of each payment's day; refunds and disputes count in the month they came.
with

revenue as (
    select * from {{ ref('agg_revenue_daily') }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

dates as (
    select * from {{ ref('dim_date') }}
),

final as (
    select
        dates.month_start_on,
        coalesce(merchants.vertical, 'unknown') as vertical,
        sum(revenue.captured_count) as captured_count,
        sum(revenue.reporting_captured_amount_minor) as captured_usd_minor,
        sum(revenue.reporting_refunded_amount_minor) as refunded_usd_minor,
        sum(revenue.reporting_disputed_amount_minor) as disputed_usd_minor
    from revenue
    inner join merchants
        on revenue.merchant_key = merchants.merchant_key
    inner join dates
        on revenue.revenue_on = dates.date_day
    group by dates.month_start_on, coalesce(merchants.vertical, 'unknown')
)

select * from final
order by month_start_on, vertical
