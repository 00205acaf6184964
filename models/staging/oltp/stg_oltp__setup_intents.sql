with

source as (
    select * from {{ source('oltp', 'setup_intents') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        setup_intent_id,
        customer_id,
        payment_method_id,

        -- properties
        usage,
        status,
        version,

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
