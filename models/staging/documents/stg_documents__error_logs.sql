with

source as (
    select * from {{ source('documents', 'error_logs') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        error_id,
        merchant_id,
        request_id,

        -- properties
        service,
        severity,
        error_type,
        message,
        fingerprint,
        context,
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
