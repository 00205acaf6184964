with

source as (
    select * from {{ source('oltp', 'products') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        product_id,

        -- properties
        product_name,
        version,

        -- flags
        is_active,
        _op = 'd' as is_deleted,

        -- times
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
