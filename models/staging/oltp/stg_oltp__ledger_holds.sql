with

source as (
    select * from {{ source('oltp', 'ledger_holds') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        hold_id,
        source_id,
        debit_account_id,
        credit_account_id,

        -- properties
        currency,
        status,
        version,

        -- amounts
        amount_minor,
        posted_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        created_at,
        expires_at,
        resolved_at,
        updated_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
