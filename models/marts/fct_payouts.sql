with

payouts as (
    select * from {{ ref('int_payouts_converted') }}
),

final as (
    select
        -- keys
        payout_key,
        payout_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,

        -- properties
        currency,
        status,
        failure_code,
        is_automatic,
        balance_transaction_count,

        -- times
        created_at,
        created_on,
        arrival_date as arrival_on,
        cast(arrival_date - created_on as integer) as days_to_arrive,

        -- money
        amount_minor,
        balance_transactions_net_minor,
        rate_to_reporting,
        reporting_amount_minor,

        -- lineage
        _batch_id
    from payouts
)

select * from final
