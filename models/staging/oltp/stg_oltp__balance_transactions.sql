with

source as (
    select * from {{ source('oltp', 'balance_transactions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        balance_transaction_id,
        source_id,

        -- properties
        type,
        currency,

        -- amounts
        amount_minor,
        fee_minor,
        net_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        available_at,
        created_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
