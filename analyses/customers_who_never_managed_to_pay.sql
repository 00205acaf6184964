-- How many customers tried to pay a merchant and never managed, and what did they want to spend?
-- The last attempt of a customer tells the reason that is counted; an attempt that is still open may end well yet.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where customer_id is not null
),

failures as (
    select attempts.*
    from payments as attempts
    where
        attempts.status = 'failed'
        and not exists (
            select 1
            from payments as successes
            where
                successes.customer_key = attempts.customer_key
                and successes.status <> 'failed'
        )
),

ranked as (
    select
        failures.*,
        row_number() over (
            partition by failures.customer_key
            order by failures.paid_at desc, failures.payment_id desc
        ) as recency
    from failures
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

final as (
    select
        merchants.merchant_id,
        merchants.business_name,
        count(distinct ranked.customer_key) as customer_count,
        count(*) as attempt_count,
        sum(ranked.reporting_amount_minor) as attempted_usd_minor,
        sum(
            case when ranked.recency = 1 and ranked.failure_code = 'insufficient_funds' then 1 else 0 end
        ) as without_funds_count
    from ranked
    inner join merchants
        on ranked.merchant_key = merchants.merchant_key
    group by merchants.merchant_id, merchants.business_name
)

select * from final
order by customer_count desc, merchant_id asc
