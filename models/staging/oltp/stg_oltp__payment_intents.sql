with

source as (
    select * from {{ source('oltp', 'payment_intents') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        payment_intent_id,
        customer_id,
        payment_method_id,
        application_merchant_id,

        -- properties
        currency,
        capture_method,
        status,
        cancellation_reason,
        version,

        -- amounts
        amount_minor,
        amount_capturable_minor,
        amount_received_minor,
        application_fee_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        canceled_at,
        created_at,
        updated_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
