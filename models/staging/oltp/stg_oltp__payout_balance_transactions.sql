with

source as (
    select * from {{ source('oltp', 'payout_balance_transactions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        balance_transaction_id,
        payout_id,

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
