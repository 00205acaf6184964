with

source as (
    select * from {{ source('oltp', 'prices') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        price_id,
        product_id,

        -- properties
        currency,
        billing_interval,
        interval_count,
        version,

        -- amounts
        unit_amount_minor,

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
