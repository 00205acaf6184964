-- Every cohort has a row for each month from its first on, without a gap, until one month that is the same for all.
-- Returns the cohorts where a month is missing.
with

cohorts as (
    select
        merchant_key,
        cohort_month_on,
        count(*) as row_count,
        max(months_since) as last_months_since
    from {{ ref('agg_cohort_retention') }}
    group by merchant_key, cohort_month_on
),

last_month as (
    select
        max(12 * extract(year from cohort_month_on) + extract(month from cohort_month_on) + last_months_since)
            as month_number
    from cohorts
),

final as (
    select cohorts.*
    from cohorts
    cross join last_month
    where
        cohorts.row_count <> cohorts.last_months_since + 1
        or 12 * extract(year from cohorts.cohort_month_on) + extract(month from cohorts.cohort_month_on)
        + cohorts.last_months_since <> last_month.month_number
)

select * from final
