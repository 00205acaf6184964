with

source as (
    select * from {{ source('documents', 'webhook_deliveries') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        delivery_id,
        merchant_id,
        event_id,

        -- properties
        event_type,
        endpoint,
        state,
        attempts,
        attempt_count,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,
        _op = 'x' as is_expired,

        -- times
        created_at,
        next_attempt_at,
        expire_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
