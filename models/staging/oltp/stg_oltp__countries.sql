with

source as (
    select * from {{ source('oltp', 'countries') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        country,

        -- properties
        country_name,
        region,
        currency,

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
