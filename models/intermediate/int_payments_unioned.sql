with

charges as (
    select * from {{ ref('int_charges_with_refunds_and_disputes') }}
),

transactions as (
    select * from {{ ref('stg_files__transactions') }}
    where not is_deleted
),

customers as (
    select * from {{ ref('stg_oltp__customers') }}
    where not is_deleted
),

payments_of_charges as (
    {{ payments_of_charges('charges') }}
),

-- A file says little: without a status a transaction has succeeded; its customers are the file's own, across its
-- merchants, unless the operational store knows the pair of merchant and customer.
payments_of_files as (
    select
        {{ surrogate_key(["'files'", 'transactions.transaction_id']) }} as payment_key,
        transactions.transaction_id as payment_id,
        'files' as source,
        {{ surrogate_key(['transactions.merchant_id']) }} as merchant_key,
        transactions.merchant_id,
        case
            when transactions.customer_id is null then {{ unknown_key() }}
            when customers.customer_id is not null
                then {{ surrogate_key(["'oltp'", 'transactions.merchant_id', 'transactions.customer_id']) }}
            else {{ surrogate_key(["'files'", 'transactions.customer_id']) }}
        end as customer_key,
        transactions.customer_id,
        customers.network_token as person_token,
        customers.country as customer_country,
        cast(null as text) as card_token,
        cast(null as text) as issuer_country,
        case
            when transactions.payment_method is null then {{ unknown_key() }}
            else {{ surrogate_key(["'files'", 'transactions.payment_method']) }}
        end as payment_method_key,
        cast(null as text) as payment_method_id,
        transactions.payment_method as payment_method_type,
        cast(null as text) as device_id,
        transactions.device_type,
        transactions.ip_country,
        cast(null as text) as ip_network_token,
        transactions.currency,
        coalesce(transactions.status, 'succeeded') as status,
        cast(null as text) as failure_code,
        transactions.amount_minor,
        case
            when transactions.status in ('failed', 'pending') then 0
            else transactions.amount_minor
        end as captured_amount_minor,
        case when transactions.status = 'refunded' then transactions.amount_minor else 0 end as refunded_amount_minor,
        cast(0 as bigint) as disputed_amount_minor,
        cast(0 as bigint) as fee_minor,
        transactions.anomaly_score,
        transactions.is_fraud,
        transactions.fraud_known_at,
        transactions.transaction_at as paid_at,
        transactions._batch_id
    from transactions
    left join customers
        on
            transactions.merchant_id = customers.merchant_id
            and transactions.customer_id = customers.customer_id
),

final as (
    select * from payments_of_charges
    union all
    select * from payments_of_files
)

select * from final
