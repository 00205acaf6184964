with

source as (
    select * from {{ source('documents', 'recommendations') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        recommendation_id,
        merchant_id,
        customer_id,

        -- properties
        customer_version,
        version,
        slot,
        items,
        model_version,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,
        _op = 'x' as is_expired,

        -- times
        computed_at,
        expire_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
