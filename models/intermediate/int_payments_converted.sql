with

payments as (
    select * from {{ ref('int_payments_unioned') }}
),

currencies as (
    select * from {{ ref('currencies') }}
),

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

-- The reporting currency is the dollar: book rates are kept against it.
reporting as (
    select exponent
    from currencies
    where currency = 'USD'
),

-- Before the first fixing the first one holds, after the last one the last.
rate_days as (
    select
        min(rate_day) as first_day,
        max(rate_day) as last_day
    from rates
),

dated as (
    select
        payments.*,
        {{ utc_date('payments.paid_at') }} as paid_on,
        currencies.exponent,
        least(greatest({{ utc_date('payments.paid_at') }}, rate_days.first_day), rate_days.last_day) as rate_day
    from payments
    cross join rate_days
    inner join currencies
        on payments.currency = currencies.currency
),

final as (
    select
        dated.*,
        rates.rate_to_reporting,
        {{ minor_to_major('dated.amount_minor', 'dated.exponent') }} as amount,
        {{ convert_minor('dated.amount_minor', 'dated.exponent', 'rates.rate_to_reporting', 'reporting.exponent') }}
            as reporting_amount_minor,
        {{ convert_minor(
            'dated.captured_amount_minor', 'dated.exponent', 'rates.rate_to_reporting', 'reporting.exponent'
        ) }} as reporting_captured_amount_minor
    from dated
    cross join reporting
    left join rates
        on
            dated.currency = rates.currency
            and dated.rate_day = rates.rate_day
)

select * from final
