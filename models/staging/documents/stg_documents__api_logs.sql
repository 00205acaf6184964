with

source as (
    select * from {{ source('documents', 'api_logs') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        request_id,
        merchant_id,

        -- properties
        method,
        path,
        status_code,
        error_code,
        latency_ms,
        api_version,
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
