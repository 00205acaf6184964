with

source as (
    select * from {{ source('oltp', 'settlements') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,

        -- properties
        currency,

        -- amounts
        amount_minor,
        net_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        day,
        settled_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
