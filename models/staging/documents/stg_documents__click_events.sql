with

source as (
    select * from {{ source('documents', 'click_events') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        event_id,
        merchant_id,
        session_id,

        -- properties
        event_type,
        page,
        properties,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,
        _op = 'x' as is_expired,

        -- times
        occurred_at,
        expire_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
