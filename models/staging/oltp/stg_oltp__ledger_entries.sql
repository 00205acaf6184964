with

source as (
    select * from {{ source('oltp', 'ledger_entries') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        ledger_transaction_id,
        entry_no,
        ledger_account_id,

        -- properties
        currency,
        side,
        account_entry_no,

        -- amounts
        amount_minor,
        balance_after_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        posted_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
