with

source as (
    select * from {{ source('oltp', 'discounts') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        discount_id,
        coupon_id,
        subscription_id,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        starts_at,
        ends_at,
        created_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
