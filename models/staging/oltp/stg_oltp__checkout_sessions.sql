with

source as (
    select * from {{ source('oltp', 'checkout_sessions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        checkout_session_id,
        customer_id,
        payment_intent_id,

        -- properties
        mode,
        status,
        currency,
        version,

        -- amounts
        amount_total_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        expires_at,
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
