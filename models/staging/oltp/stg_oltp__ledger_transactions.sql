with

source as (
    select * from {{ source('oltp', 'ledger_transactions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        ledger_transaction_id,
        source_id,

        -- properties
        kind,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        posted_at,
        recorded_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
