with

-- Who is not known is nobody's first or next payment.
payments as (
    select
        *,
        {{ period_start('month', 'paid_on') }} as paid_month_on
    from {{ ref('fct_payments') }}
    where
        captured_amount_minor > 0
        and customer_key <> {{ unknown_key() }}
),

first_payments as (
    select
        merchant_key,
        customer_key,
        min(paid_month_on) as cohort_month_on
    from payments
    group by merchant_key, customer_key
),

cohorts as (
    select
        merchant_key,
        cohort_month_on,
        count(*) as customer_count
    from first_payments
    group by merchant_key, cohort_month_on
),

-- The triangle ends with the as-of month, or with the last payment if that is later.
last_month as (
    select greatest({{ utc_date(as_of()) }}, max(paid_month_on)) as last_day
    from payments
),

ages as (
    select
        cohorts.merchant_key,
        cohorts.cohort_month_on,
        cohorts.customer_count,
        {{ months_between('cohorts.cohort_month_on', 'last_month.last_day') }} as last_months_since
    from cohorts
    cross join last_month
),

triangle as (
    select
        ages.merchant_key,
        ages.cohort_month_on,
        ages.customer_count,
        cast(months.months_since as integer) as months_since
    from ages
    cross join
        generate_series(0, (select coalesce(max(all_ages.last_months_since), 0) from ages as all_ages))
            as months (months_since)
    where months.months_since <= ages.last_months_since
),

activity as (
    select
        first_payments.merchant_key,
        first_payments.cohort_month_on,
        {{ months_between('first_payments.cohort_month_on', 'payments.paid_month_on') }} as months_since,
        count(distinct payments.customer_key) as active_customer_count,
        count(*) as payment_count,
        count(payments.reporting_captured_amount_minor) as converted_count,
        sum(payments.reporting_captured_amount_minor) as reporting_captured_amount_minor
    from payments
    inner join first_payments
        on
            payments.merchant_key = first_payments.merchant_key
            and payments.customer_key = first_payments.customer_key
    group by
        first_payments.merchant_key,
        first_payments.cohort_month_on,
        {{ months_between('first_payments.cohort_month_on', 'payments.paid_month_on') }}
),

final as (
    select
        -- keys
        {{ surrogate_key(['triangle.cohort_month_on', 'triangle.merchant_key', 'triangle.months_since']) }}
            as cohort_retention_key,
        triangle.cohort_month_on,
        triangle.merchant_key,
        triangle.months_since,

        -- customers
        triangle.customer_count,
        coalesce(activity.active_customer_count, 0) as active_customer_count,
        {{ basis_points('coalesce(activity.active_customer_count, 0)', 'triangle.customer_count') }}
            as retention_basis_points,

        -- payments
        coalesce(activity.payment_count, 0) as payment_count,
        coalesce(activity.payment_count - activity.converted_count, 0) as unconverted_count,
        cast(coalesce(activity.reporting_captured_amount_minor, 0) as bigint) as reporting_captured_amount_minor
    from triangle
    left join activity
        on
            triangle.merchant_key = activity.merchant_key
            and triangle.cohort_month_on = activity.cohort_month_on
            and triangle.months_since = activity.months_since
)

select * from final
