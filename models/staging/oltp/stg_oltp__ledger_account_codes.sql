with

source as (
    select * from {{ source('oltp', 'ledger_account_codes') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        code,

        -- properties
        normal_side,
        description,

        -- flags
        is_protected,
        is_spread,
        is_clearing,
        is_merchants,
        _op = 'd' as is_deleted,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
