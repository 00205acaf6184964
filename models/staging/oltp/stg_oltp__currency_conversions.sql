with

source as (
    select * from {{ source('oltp', 'currency_conversions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        currency_conversion_id,

        -- properties
        from_currency,
        to_currency,
        rate,

        -- amounts
        from_amount_minor,
        to_amount_minor,
        fee_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        created_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
