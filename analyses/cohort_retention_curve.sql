-- How many customers of a month come back later, and what has a customer of it brought so far?
-- All merchants together; a customer is one of a merchant, and belongs to the month of the first captured payment.
with

cohorts as (
    select * from {{ ref('agg_cohort_retention') }}
),

totals as (
    select
        cohort_month_on,
        months_since,
        sum(customer_count) as customer_count,
        sum(active_customer_count) as active_customer_count,
        sum(reporting_captured_amount_minor) as reporting_captured_minor
    from cohorts
    group by cohort_month_on, months_since
),

-- A merchant that had no customer in a month has no such cohort, so the cohort has the same size at every age.
grown as (
    select
        totals.*,
        sum(totals.reporting_captured_minor) over (
            partition by totals.cohort_month_on
            order by totals.months_since
            rows between unbounded preceding and current row
        ) as reporting_so_far_minor
    from totals
),

final as (
    select
        cohort_month_on,
        months_since,
        customer_count,
        active_customer_count,
        {{ basis_points('active_customer_count', 'customer_count') }} as retention_basis_points,
        reporting_captured_minor as captured_usd_minor,
        {{ divide_half_even('reporting_so_far_minor', 'customer_count') }} as captured_per_customer_so_far_usd_minor
    from grown
)

select * from final
order by cohort_month_on, months_since
