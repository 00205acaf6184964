-- What made monthly recurring revenue grow or shrink, month by month?
-- In the reporting currency at the rate of the day each month is measured: its end, or now. What rates alone did
-- since the month before stands apart, so that opening and movements add up to closing, and closing and rates to the
-- next opening.
with

mrr as (
    select * from {{ ref('agg_mrr_monthly') }}
),

months as (
    select
        month_start_on,
        sum(reporting_opening_mrr_minor) as opening_usd_minor,
        sum(reporting_new_mrr_minor) as new_usd_minor,
        sum(reporting_reactivation_mrr_minor) as reactivation_usd_minor,
        sum(reporting_expansion_mrr_minor) as expansion_usd_minor,
        sum(reporting_contraction_mrr_minor) as contraction_usd_minor,
        sum(reporting_churn_mrr_minor) as churn_usd_minor,
        sum(reporting_closing_mrr_minor) as closing_usd_minor,
        sum(new_customer_count) as new_customer_count,
        sum(churn_customer_count) as churn_customer_count,
        sum(closing_customer_count) as closing_customer_count
    from mrr
    group by month_start_on
),

compared as (
    select
        months.*,
        lag(months.closing_usd_minor) over (order by months.month_start_on) as previous_closing_usd_minor
    from months
),

final as (
    select
        month_start_on,
        opening_usd_minor - previous_closing_usd_minor as rates_usd_minor,
        opening_usd_minor,
        new_usd_minor,
        reactivation_usd_minor,
        expansion_usd_minor,
        contraction_usd_minor,
        churn_usd_minor,
        closing_usd_minor,
        new_customer_count,
        churn_customer_count,
        closing_customer_count,
        {{ basis_points('-churn_usd_minor', 'greatest(opening_usd_minor, 0)') }} as churned_basis_points
    from compared
)

select * from final
order by month_start_on
