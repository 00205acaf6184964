with

balance_transactions as (
    select * from {{ ref('int_balance_transactions_converted') }}
),

final as (
    select
        -- keys
        balance_transaction_key,
        balance_transaction_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        payment_key,
        payout_key,

        -- ids
        source_id,
        payout_id,

        -- properties
        type,
        currency,

        -- times
        created_at,
        created_on,
        available_at,
        available_on,

        -- money
        amount_minor,
        fee_minor,
        net_minor,
        processing_fee_minor,
        application_fee_minor,
        dispute_fee_minor,
        conversion_fee_minor,
        rate_to_reporting,
        reporting_amount_minor,
        reporting_fee_minor,
        reporting_net_minor,

        -- lineage
        _batch_id
    from balance_transactions
)

select * from final
