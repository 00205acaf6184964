-- What does a day bring, seen without the noise of weekdays and of single large payments?
-- Moving averages over 7 and 28 days that end with the day; a day without a payment counts as nothing. None is given
-- before so many days are known.
with

revenue as (
    select * from {{ ref('agg_revenue_daily') }}
),

dates as (
    select * from {{ ref('dim_date') }}
),

span as (
    select
        min(revenue_on) as first_on,
        max(revenue_on) as last_on
    from revenue
),

days as (
    select
        dates.date_day,
        coalesce(sum(revenue.captured_count), 0) as captured_count,
        coalesce(sum(revenue.reporting_captured_amount_minor), 0) as reporting_captured_minor
    from dates
    inner join span
        on dates.date_day between span.first_on and span.last_on
    left join revenue
        on dates.date_day = revenue.revenue_on
    group by dates.date_day
),

windows as (
    select
        days.*,
        row_number() over (order by days.date_day) as day_number,
        sum(days.reporting_captured_minor) over (
            order by days.date_day
            rows between 6 preceding and current row
        ) as reporting_captured_7d_minor,
        sum(days.reporting_captured_minor) over (
            order by days.date_day
            rows between 27 preceding and current row
        ) as reporting_captured_28d_minor
    from days
),

final as (
    select
        date_day,
        captured_count,
        reporting_captured_minor as captured_usd_minor,
        case when day_number >= 7 then {{ divide_half_even('reporting_captured_7d_minor', 7) }} end
            as mean_of_7_days_usd_minor,
        case when day_number >= 28 then {{ divide_half_even('reporting_captured_28d_minor', 28) }} end
            as mean_of_28_days_usd_minor
    from windows
)

select * from final
order by date_day
