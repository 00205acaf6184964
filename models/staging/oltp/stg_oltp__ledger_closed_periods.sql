with

source as (
    select * from {{ source('oltp', 'ledger_closed_periods') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- flags
        _op = 'd' as is_deleted,

        -- times
        period,
        closed_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
