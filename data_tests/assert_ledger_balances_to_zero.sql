-- The ledger is double entry: debits and credits are equal for each posting and currency, and so for each currency.
-- Returns the postings that do not balance.
with

entries as (
    select * from {{ ref('fct_ledger_entries') }}
),

final as (
    select
        merchant_id,
        ledger_transaction_id,
        currency,
        sum(signed_amount_minor) as difference_minor
    from entries
    group by merchant_id, ledger_transaction_id, currency
    having sum(signed_amount_minor) <> 0
)

select * from final
