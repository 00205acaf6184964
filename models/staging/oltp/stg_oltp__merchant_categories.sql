with

source as (
    select * from {{ source('oltp', 'merchant_categories') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        mcc,

        -- properties
        category_name,

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
