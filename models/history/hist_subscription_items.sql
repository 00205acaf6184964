with

source as (
    select * from {{ source('oltp', 'subscription_items') }}
),

versions as (
    {{ versions_from_log('source') }}
),

final as (
    select
        -- keys
        {{ surrogate_key(['merchant_id', 'subscription_item_id', '_position']) }} as subscription_item_version_key,

        -- ids
        merchant_id,
        subscription_item_id,
        subscription_id,
        price_id,

        -- properties
        quantity,
        version,

        -- times
        current_period_start_at,
        current_period_end_at,
        created_at,
        updated_at,

        {{ version_columns() }}
    from versions
)

select * from final
