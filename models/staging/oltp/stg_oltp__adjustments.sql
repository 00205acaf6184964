with

source as (
    select * from {{ source('oltp', 'adjustments') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        adjustment_id,

        -- properties
        currency,
        status,
        version,

        -- amounts
        amount_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        decided_at,
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
