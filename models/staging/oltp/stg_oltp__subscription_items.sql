with

source as (
    select * from {{ source('oltp', 'subscription_items') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        subscription_item_id,
        subscription_id,
        price_id,

        -- properties
        quantity,
        version,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        current_period_start_at,
        current_period_end_at,
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
