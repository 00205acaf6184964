-- What merchants took in their last 30 days, and in the 30 before, is what agg_revenue_daily has of those days.
-- Returns the totals where they differ.
with

clock as (
    select {{ utc_date(as_of()) }} as today
),

days as (
    select
        sum(case when revenue.revenue_on > clock.today - 30 then revenue.payment_count end) as payment_count,
        sum(
            case when revenue.revenue_on > clock.today - 30 then revenue.reporting_captured_amount_minor end
        ) as reporting_captured_minor,
        sum(
            case when revenue.revenue_on <= clock.today - 30 then revenue.reporting_captured_amount_minor end
        ) as reporting_captured_previous_minor
    from {{ ref('agg_revenue_daily') }} as revenue
    cross join clock
    where revenue.revenue_on between clock.today - 59 and clock.today
),

health as (
    select
        sum(payment_count_30d) as payment_count,
        sum(reporting_captured_30d_minor) as reporting_captured_minor,
        sum(reporting_captured_previous_30d_minor) as reporting_captured_previous_minor
    from {{ ref('agg_merchant_health') }}
),

final as (
    select
        health.payment_count,
        health.reporting_captured_minor,
        health.reporting_captured_previous_minor
    from health
    cross join days
    where
        health.payment_count <> coalesce(days.payment_count, 0)
        or health.reporting_captured_minor <> coalesce(days.reporting_captured_minor, 0)
        or health.reporting_captured_previous_minor <> coalesce(days.reporting_captured_previous_minor, 0)
)

select * from final
