with

entries as (
    select * from {{ ref('stg_oltp__ledger_entries') }}
    where not is_deleted
),

transactions as (
    select * from {{ ref('stg_oltp__ledger_transactions') }}
    where not is_deleted
),

accounts as (
    select * from {{ ref('stg_oltp__ledger_accounts') }}
    where not is_deleted
),

account_codes as (
    select * from {{ ref('stg_oltp__ledger_account_codes') }}
    where not is_deleted
),

-- Every account is in the book of a merchant; its code tells whether the money is the merchant's or the platform's.
final as (
    select
        {{ surrogate_key([
            'entries.merchant_id', 'entries.ledger_transaction_id', 'entries.entry_no'
        ]) }} as ledger_entry_key,
        entries.ledger_transaction_id,
        entries.entry_no,
        entries.merchant_id,
        entries.ledger_account_id,
        accounts.code as account_code,
        accounts.normal_side,
        account_codes.is_merchants,
        transactions.kind,
        transactions.source_id,
        entries.currency,
        entries.side,
        entries.amount_minor,
        case when entries.side = 'D' then entries.amount_minor else -entries.amount_minor end as signed_amount_minor,
        entries.account_entry_no,
        entries.balance_after_minor,
        entries.posted_at,
        entries._batch_id
    from entries
    left join transactions
        on
            entries.merchant_id = transactions.merchant_id
            and entries.ledger_transaction_id = transactions.ledger_transaction_id
    left join accounts
        on
            entries.merchant_id = accounts.merchant_id
            and entries.ledger_account_id = accounts.ledger_account_id
    left join account_codes
        on accounts.code = account_codes.code
)

select * from final
