-- What had exchange rates done to the revenue of a month by the time that the next one began?
-- Captured payments at the book rate of their day, beside the same amounts at the rate with which the next month
-- began, or at the last one known. Book rates are fixed by the month, so the rate of the last day would tell nothing.
-- Payments in the reporting currency itself, and those without a rate, are left out.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where
        captured_amount_minor > 0
        and currency <> 'USD'
        and reporting_captured_amount_minor is not null
),

rates as (
    select * from {{ ref('fct_exchange_rates') }}
),

dates as (
    select * from {{ ref('dim_date') }}
),

currencies as (
    select * from {{ ref('dim_currency') }}
),

months as (
    select
        month_start_on,
        max(date_day) + 1 as next_month_on
    from dates
    group by month_start_on
),

booked as (
    select
        dates.month_start_on,
        payments.currency,
        count(*) as captured_count,
        sum(payments.captured_amount_minor) as captured_amount_minor,
        sum(payments.reporting_captured_amount_minor) as reporting_booked_minor
    from payments
    inner join dates
        on payments.paid_on = dates.date_day
    group by dates.month_start_on, payments.currency
),

-- As of the beginning of the next month: the last rate fixed by then.
last_rates as (
    select
        booked.month_start_on,
        booked.currency,
        max(rates.rate_on) as rate_on
    from booked
    inner join months
        on booked.month_start_on = months.month_start_on
    inner join rates
        on
            booked.currency = rates.currency
            and months.next_month_on >= rates.rate_on
    group by booked.month_start_on, booked.currency
),

revalued as (
    select
        booked.*,
        rates.rate_to_reporting,
        {{ convert_minor(
            'booked.captured_amount_minor', 'currencies.exponent', 'rates.rate_to_reporting', 'reporting.exponent'
        ) }} as reporting_revalued_minor
    from booked
    inner join last_rates
        on
            booked.month_start_on = last_rates.month_start_on
            and booked.currency = last_rates.currency
    inner join rates
        on
            last_rates.currency = rates.currency
            and last_rates.rate_on = rates.rate_on
    inner join currencies
        on booked.currency = currencies.currency
    inner join currencies as reporting
        on reporting.currency = 'USD'
),

final as (
    select
        month_start_on,
        currency,
        captured_count,
        captured_amount_minor,
        rate_to_reporting as rate_of_next_month,
        reporting_booked_minor as booked_usd_minor,
        reporting_revalued_minor as revalued_usd_minor,
        reporting_revalued_minor - reporting_booked_minor as effect_usd_minor,
        {{ basis_points('(reporting_revalued_minor - reporting_booked_minor)', 'reporting_booked_minor') }}
            as effect_basis_points
    from revalued
)

select * from final
order by month_start_on, currency
