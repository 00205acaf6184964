with

source as (
    select * from {{ source('oltp', 'prices') }}
),

versions as (
    {{ versions_from_log('source') }}
),

final as (
    select
        -- keys
        {{ surrogate_key(['merchant_id', 'price_id', '_position']) }} as price_version_key,

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

        -- times
        created_at,
        updated_at,

        {{ version_columns() }}
    from versions
)

select * from final
