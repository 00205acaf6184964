-- In which countries, and by which methods, do issuers let payments through, and does it get better or worse?
-- Attempts, not customers; one that is still open is left out. The change is over the month before in which there
-- were any.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where status <> 'pending'
),

payment_methods as (
    select * from {{ ref('dim_payment_method') }}
),

dates as (
    select * from {{ ref('dim_date') }}
),

months as (
    select
        payment_methods.issuer_country,
        payments.payment_method_type,
        dates.month_start_on,
        count(*) as attempt_count,
        sum(case when payments.status = 'failed' then 0 else 1 end) as authorized_count
    from payments
    inner join payment_methods
        on payments.payment_method_key = payment_methods.payment_method_key
    inner join dates
        on payments.paid_on = dates.date_day
    group by payment_methods.issuer_country, payments.payment_method_type, dates.month_start_on
),

rated as (
    select
        months.*,
        {{ basis_points('months.authorized_count', 'months.attempt_count') }} as authorization_rate_basis_points
    from months
),

final as (
    select
        issuer_country,
        payment_method_type,
        month_start_on,
        attempt_count,
        authorized_count,
        authorization_rate_basis_points,
        authorization_rate_basis_points - lag(authorization_rate_basis_points) over (
            partition by issuer_country, payment_method_type
            order by month_start_on
        ) as change_basis_points
    from rated
)

select * from final
order by issuer_country, payment_method_type, month_start_on
