with

ledger_entries as (
    select * from {{ ref('int_ledger_entries_joined') }}
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

facts as (
    select
        -- keys
        ledger_entry_key,
        ledger_transaction_id,
        entry_no,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        ledger_account_id,
        source_id,

        -- properties
        account_code,
        normal_side,
        kind,
        currency,
        side,
        is_merchants,

        -- times
        posted_at,
        {{ utc_date('posted_at') }} as posted_on,

        -- money
        amount_minor,
        signed_amount_minor,
        account_entry_no,
        balance_after_minor,

        -- lineage
        _batch_id
    from ledger_entries
),

final as (
    {{ with_versions('facts', 'facts.posted_at', ['merchant']) }}
)

select * from final
