with

source as (
    select * from {{ source('oltp', 'currencies') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        currency,

        -- properties
        currency_name,
        exponent,

        -- flags
        _op = 'd' as is_deleted,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
