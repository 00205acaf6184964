with

source as (
    select * from {{ source('oltp', 'ledger_accounts') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        ledger_account_id,
        merchant_id,

        -- properties
        code,
        currency,
        normal_side,
        entry_count,

        -- amounts
        debits_posted_minor,
        credits_posted_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        created_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
