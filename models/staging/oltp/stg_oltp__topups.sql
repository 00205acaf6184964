with

source as (
    select * from {{ source('oltp', 'topups') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        topup_id,

        -- properties
        currency,
        status,
        version,

        -- amounts
        amount_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
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
