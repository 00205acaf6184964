with

source as (
    select * from {{ source('documents', 'ml_features') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        feature_row_id,
        merchant_id,
        entity_id,

        -- properties
        entity_type,
        feature_set,
        feature_set_version,
        feature_values,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,
        _op = 'x' as is_expired,

        -- times
        as_of,
        available_at,
        expire_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
