-- Why do payments fail, and how much revenue was attempted and not captured for each reason and kind of payment method?
-- Attempts are counted, not customers: one that fails three times and then pays is three attempts lost.
with

payments as (
    select * from {{ ref('fct_payments') }}
),

attempts as (
    select
        payment_method_type,
        count(*) as attempt_count
    from payments
    group by payment_method_type
),

declined as (
    select
        payment_method_type,
        coalesce(failure_code, 'unknown') as failure_code,
        count(*) as declined_count,
        coalesce(sum(reporting_amount_minor), 0) as declined_usd_minor
    from payments
    where status = 'failed'
    group by payment_method_type, coalesce(failure_code, 'unknown')
),

final as (
    select
        declined.payment_method_type,
        declined.failure_code,
        declined.declined_count,
        declined.declined_usd_minor,
        {{ basis_points('declined.declined_count', 'attempts.attempt_count') }} as share_of_attempts_basis_points
    from declined
    inner join attempts
        on declined.payment_method_type = attempts.payment_method_type
)

select * from final
order by declined_usd_minor desc, payment_method_type asc, failure_code asc
