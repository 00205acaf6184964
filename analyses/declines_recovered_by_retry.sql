-- Which declines are worth another try, and how much revenue do retries bring back?
-- Recovered: the same customer paid the same amount in the same currency within 7 days after. Two declines before one
-- payment both count as recovered. Declines of customers who are not known are left out.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where customer_id is not null
),

declines as (
    select * from payments
    where status = 'failed'
),

recovered as (
    select declines.payment_key
    from declines
    where
        exists (
            select 1
            from payments as retries
            where
                retries.customer_key = declines.customer_key
                and retries.currency = declines.currency
                and retries.amount_minor = declines.amount_minor
                and retries.captured_amount_minor > 0
                and retries.paid_at > declines.paid_at
                and retries.paid_at <= declines.paid_at + interval '7 days'
        )
),

judged as (
    select
        coalesce(declines.failure_code, 'unknown') as failure_code,
        declines.reporting_amount_minor,
        recovered.payment_key is not null as is_recovered
    from declines
    left join recovered
        on declines.payment_key = recovered.payment_key
),

totals as (
    select
        failure_code,
        count(*) as declined_count,
        sum(case when is_recovered then 1 else 0 end) as recovered_count,
        coalesce(sum(case when is_recovered then reporting_amount_minor else 0 end), 0) as recovered_usd_minor,
        coalesce(sum(case when is_recovered then 0 else reporting_amount_minor end), 0) as lost_usd_minor
    from judged
    group by failure_code
),

final as (
    select
        failure_code,
        declined_count,
        recovered_count,
        {{ basis_points('recovered_count', 'declined_count') }} as recovery_rate_basis_points,
        recovered_usd_minor,
        lost_usd_minor
    from totals
)

select * from final
order by lost_usd_minor desc, failure_code asc
