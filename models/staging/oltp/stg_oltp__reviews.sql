with

source as (
    select * from {{ source('oltp', 'reviews') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        review_id,
        charge_id,

        -- properties
        opened_reason,
        closed_reason,
        version,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        closed_at,
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
