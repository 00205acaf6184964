-- Do the books of every merchant balance, in every currency?
-- Debits and credits of all entries: the difference is 0 for every book and no transaction is out of balance, or
-- money was lost. Books stand here whether they balance or not; those that do not come first.
with

entries as (
    select * from {{ ref('fct_ledger_entries') }}
),

transactions as (
    select
        merchant_id,
        ledger_transaction_id,
        currency,
        count(*) as entry_count,
        sum(case when side = 'D' then amount_minor else 0 end) as debit_minor,
        sum(case when side = 'C' then amount_minor else 0 end) as credit_minor
    from entries
    group by merchant_id, ledger_transaction_id, currency
),

final as (
    select
        merchant_id,
        currency,
        count(*) as transaction_count,
        sum(entry_count) as entry_count,
        sum(debit_minor) as debit_minor,
        sum(credit_minor) as credit_minor,
        sum(debit_minor - credit_minor) as difference_minor,
        sum(case when debit_minor <> credit_minor then 1 else 0 end) as unbalanced_transaction_count
    from transactions
    group by merchant_id, currency
)

select * from final
order by unbalanced_transaction_count desc, merchant_id asc, currency asc
