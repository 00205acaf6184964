with

source as (
    select * from {{ source('oltp', 'balance_transaction_fees') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        balance_transaction_id,

        -- properties
        type,
        currency,

        -- amounts
        amount_minor,

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
