with

source as (
    select * from {{ source('documents', 'inbox_events') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        event_id,
        account_id,
        object_id,
        customer_id,

        -- properties
        event_type,
        api_version,
        object_type,
        object,
        body_sha256,
        schema_version,

        -- flags
        is_live,
        _op = 'd' as is_deleted,
        _op = 'x' as is_expired,

        -- times
        created_at,
        signed_at,
        received_at,
        expire_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
