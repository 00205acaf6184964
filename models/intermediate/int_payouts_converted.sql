with

payouts as (
    select * from {{ ref('stg_oltp__payouts') }}
    where not is_deleted
),

balance_transactions as (
    select * from {{ ref('int_balance_transactions_converted') }}
),

currencies as (
    select * from {{ ref('currencies') }}
),

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

paid_out as (
    select
        merchant_id,
        payout_id,
        currency,
        cast(count(*) as integer) as balance_transaction_count,
        cast(sum(net_minor) as bigint) as balance_transactions_net_minor
    from balance_transactions
    where payout_id is not null
    group by merchant_id, payout_id, currency
),

-- A payout is in one currency, and so is all that it pays out.
joined as (
    select
        {{ surrogate_key(['payouts.merchant_id', 'payouts.payout_id']) }} as payout_key,
        payouts.*,
        coalesce(paid_out.balance_transaction_count, 0) as balance_transaction_count,
        coalesce(paid_out.balance_transactions_net_minor, 0) as balance_transactions_net_minor,
        {{ utc_date('payouts.created_at') }} as created_on
    from payouts
    left join paid_out
        on
            payouts.merchant_id = paid_out.merchant_id
            and payouts.payout_id = paid_out.payout_id
            and payouts.currency = paid_out.currency
),

rated as (
    {{ with_rate_of_day('joined', 'created_on') }}
),

final as (
    select
        rated.*,
        {{ reporting_minor('amount_minor') }} as reporting_amount_minor
    from rated
)

select * from final
