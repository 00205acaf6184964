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
        failure_code,
        count(*) as declined_count,
        sum(reporting_amount_minor) as declined_usd_minor
    from payments
    where status = 'failed'
    group by payment_method_type, failure_code
),

final as (
    select
        declined.payment_method_type,
        declined.failure_code,
        declined.declined_count,
        declined.declined_usd_minor,
        round(100.0 * declined.declined_count / attempts.attempt_count, 2) as percent_of_attempts
    from declined
    inner join attempts
        on declined.payment_method_type = attempts.payment_method_type
)

select * from final
order by declined_usd_minor desc
