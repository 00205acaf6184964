with

source as (
    select * from {{ source('documents', 'sessions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        session_id,
        merchant_id,
        customer_id,
        device_id,
        payment_intent_id,

        -- properties
        device_type,
        ip_country,
        page_count,
        event_count,
        utm_source,
        schema_version,

        -- flags
        has_converted,
        has_overflow,
        _op = 'd' as is_deleted,
        _op = 'x' as is_expired,

        -- times
        started_at,
        ended_at,
        expire_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
