with

refunds as (
    select * from {{ ref('int_refunds_converted') }}
),

final as (
    select
        -- keys
        refund_key,
        refund_id,
        payment_key,
        payment_id,
        merchant_key,
        merchant_id,
        customer_key,

        -- properties
        currency,
        status,
        reason,

        -- times
        refunded_at,
        refunded_on,

        -- money
        amount_minor,
        amount,
        rate_to_reporting,
        reporting_amount_minor,

        -- lineage
        _batch_id
    from refunds
)

select * from final
