with

source as (
    select * from {{ source('documents', 'dispute_evidence') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        evidence_id,
        merchant_id,
        dispute_id,

        -- properties
        kind,
        media_type,
        size_bytes,
        sha256,
        dispute_version,
        uploaded_by,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        uploaded_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
