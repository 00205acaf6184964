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

-- The platform's own accounts belong to the member "platform"; an account that has not landed to the unknown member.
final as (
    select
        {{ surrogate_key(['entries.ledger_transaction_id', 'entries.entry_no']) }} as ledger_entry_key,
        entries.ledger_transaction_id,
        entries.entry_no,
        case
            when accounts.ledger_account_id is not null then coalesce(accounts.merchant_id, 'platform')
        end as merchant_id,
        entries.ledger_account_id,
        accounts.code as account_code,
        accounts.normal_side,
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
        on entries.ledger_transaction_id = transactions.ledger_transaction_id
    left join accounts
        on entries.ledger_account_id = accounts.ledger_account_id
)

select * from final
