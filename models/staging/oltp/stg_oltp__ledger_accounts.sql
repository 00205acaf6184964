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
        merchant_id,
        ledger_account_id,

        -- properties
        code,
        currency,
        bucket,
        normal_side,
        entry_count,

        -- amounts
        debits_posted_minor,
        credits_posted_minor,
        debits_pending_minor,
        credits_pending_minor,

        -- flags
        is_protected,
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
