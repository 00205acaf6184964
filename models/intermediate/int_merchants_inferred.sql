with

merchants as (
    select * from {{ ref('stg_oltp__merchants') }}
),

payments as (
    select * from {{ ref('int_payments_unioned') }}
),

refunds as (
    select * from {{ ref('int_refunds_converted') }}
),

disputes as (
    select * from {{ ref('int_disputes_converted') }}
),

ledger_entries as (
    select * from {{ ref('int_ledger_entries_joined') }}
),

customers as (
    select * from {{ ref('stg_oltp__customers') }}
),

payment_methods as (
    select * from {{ ref('stg_oltp__payment_methods') }}
),

documents as (
    {%- for collection in [
        'sessions', 'click_events', 'feedback', 'api_logs', 'webhook_deliveries', 'fraud_decisions', 'customer_profiles',
        'audit_events',
    ] %}
        select merchant_id from {{ ref('stg_documents__' ~ collection) }}
        where not is_deleted
        {%- if not loop.last %}
            union
        {%- endif %}
    {%- endfor %}
),

reconciled_payouts as (
    select * from {{ ref('int_payouts_reconciled') }}
),

balance_transactions as (
    select * from {{ ref('stg_oltp__balance_transactions') }}
    where not is_deleted
),

payouts as (
    select * from {{ ref('stg_oltp__payouts') }}
    where not is_deleted
),

subscriptions as (
    select * from {{ ref('hist_subscriptions') }}
),

invoices as (
    select * from {{ ref('stg_oltp__invoices') }}
    where not is_deleted
),

invoice_lines as (
    select * from {{ ref('stg_oltp__invoice_lines') }}
    where not is_deleted
),

mentioned as (
    select merchant_id from payments
    union
    select merchant_id from refunds
    union
    select merchant_id from disputes
    union
    select merchant_id from ledger_entries
    union
    select merchant_id from customers
    union
    select merchant_id from payment_methods
    union
    select merchant_id from documents
    union
    select merchant_id from reconciled_payouts
    union
    select merchant_id from balance_transactions
    union
    select merchant_id from payouts
    union
    select merchant_id from subscriptions
    union
    select merchant_id from invoices
    union
    select merchant_id from invoice_lines
),

-- Merchants that something mentions and no landed merchant describes.
final as (
    select mentioned.merchant_id
    from mentioned
    left join merchants
        on mentioned.merchant_id = merchants.merchant_id
    where
        mentioned.merchant_id is not null
        and merchants.merchant_id is null
)

select * from final
