-- How does net revenue grow from month to month?
-- In the reporting currency at the book rate of each payment's day; refunds and disputes count in the month they
-- came. Growth is over the month before that had any, and has no value where that one brought nothing; the first and
-- the last month may be cut.
with

revenue as (
    select * from {{ ref('agg_revenue_monthly') }}
),

months as (
    select
        month_start_on,
        sum(captured_count) as captured_count,
        coalesce(sum(reporting_captured_amount_minor), 0) as captured_usd_minor,
        coalesce(sum(reporting_refunded_amount_minor), 0) as refunded_usd_minor,
        coalesce(sum(reporting_disputed_amount_minor), 0) as disputed_usd_minor
    from revenue
    group by month_start_on
),

net as (
    select
        months.*,
        months.captured_usd_minor - months.refunded_usd_minor - months.disputed_usd_minor as net_usd_minor
    from months
),

compared as (
    select
        net.*,
        lag(net.net_usd_minor) over (order by net.month_start_on) as previous_net_usd_minor
    from net
),

final as (
    select
        month_start_on,
        captured_count,
        captured_usd_minor,
        refunded_usd_minor,
        disputed_usd_minor,
        net_usd_minor,
        net_usd_minor - previous_net_usd_minor as change_usd_minor,
        {{ basis_points('(net_usd_minor - previous_net_usd_minor)', 'greatest(previous_net_usd_minor, 0)') }}
            as growth_basis_points
    from compared
)

select * from final
order by month_start_on
