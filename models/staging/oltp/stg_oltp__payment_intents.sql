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

        -- properties
        currency,
        status,

        -- amounts
        amount_minor,
        amount_received_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
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
