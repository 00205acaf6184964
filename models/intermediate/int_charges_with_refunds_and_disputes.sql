with

charges as (
    select * from {{ ref('stg_oltp__charges') }}
    where not is_deleted
),

refunds as (
    select * from {{ ref('stg_oltp__refunds') }}
    where not is_deleted
),

disputes as (
    select * from {{ ref('stg_oltp__disputes') }}
    where not is_deleted
),

balance_transactions as (
    select * from {{ ref('stg_oltp__balance_transactions') }}
    where not is_deleted
),

balance_transaction_fees as (
    select * from {{ ref('stg_oltp__balance_transaction_fees') }}
    where not is_deleted
),

payment_methods as (
    select * from {{ ref('stg_oltp__payment_methods') }}
    where not is_deleted
),

customers as (
    select * from {{ ref('stg_oltp__customers') }}
    where not is_deleted
),

-- Everything that a charge has many of comes down to one row a charge before it is joined.
refunds_by_charge as (
    select
        merchant_id,
        charge_id,
        count(*) as refund_count,
        cast(sum(amount_minor) as bigint) as refund_amount_minor
    from refunds
    where status not in ('failed', 'canceled')
    group by merchant_id, charge_id
),

-- An inquiry (warning_*) is no dispute yet, and a prevented one never becomes one: they move no money, give no label.
disputes_by_charge as (
    select
        merchant_id,
        charge_id,
        count(*) as dispute_count,
        cast(sum(case when status = 'won' then 0 else amount_minor end) as bigint) as disputed_amount_minor,
        min(case when reason = 'fraudulent' then created_at end) as fraud_known_at
    from disputes
    where status not in ('warning_needs_response', 'warning_under_review', 'warning_closed', 'prevented')
    group by merchant_id, charge_id
),

-- What the platform took; an application fee goes to another merchant.
fees_by_charge as (
    select
        balance_transactions.merchant_id,
        balance_transactions.source_id as charge_id,
        cast(sum(balance_transaction_fees.amount_minor) as bigint) as fee_minor
    from balance_transactions
    inner join balance_transaction_fees
        on
            balance_transactions.merchant_id = balance_transaction_fees.merchant_id
            and balance_transactions.balance_transaction_id = balance_transaction_fees.balance_transaction_id
    where
        balance_transactions.type = 'charge'
        and balance_transaction_fees.type = 'processing_fee'
    group by balance_transactions.merchant_id, balance_transactions.source_id
),

final as (
    select
        charges.merchant_id,
        charges.charge_id,
        charges.payment_intent_id,
        charges.customer_id,
        customers.network_token,
        customers.country as customer_country,
        charges.payment_method_id,
        payment_methods.type as payment_method_type,
        payment_methods.fingerprint,
        payment_methods.issuer_country,
        charges.device_id,
        charges.device_type,
        charges.ip_country,
        charges.ip_network_token,
        charges.currency,
        charges.status as charge_status,
        charges.failure_code,
        charges.amount_minor,
        charges.amount_captured_minor as captured_amount_minor,
        charges.amount_refunded_minor as refunded_amount_minor,
        coalesce(refunds_by_charge.refund_count, 0) as refund_count,
        coalesce(refunds_by_charge.refund_amount_minor, 0) as refund_amount_minor,
        coalesce(disputes_by_charge.dispute_count, 0) as dispute_count,
        coalesce(disputes_by_charge.disputed_amount_minor, 0) as disputed_amount_minor,
        coalesce(fees_by_charge.fee_minor, 0) as fee_minor,
        cast(charges.anomaly_score as double precision) as anomaly_score,
        disputes_by_charge.fraud_known_at is not null as is_fraud,
        disputes_by_charge.fraud_known_at,
        charges.created_at,
        charges._batch_id
    from charges
    left join customers
        on
            charges.merchant_id = customers.merchant_id
            and charges.customer_id = customers.customer_id
    left join payment_methods
        on
            charges.merchant_id = payment_methods.merchant_id
            and charges.payment_method_id = payment_methods.payment_method_id
    left join refunds_by_charge
        on
            charges.merchant_id = refunds_by_charge.merchant_id
            and charges.charge_id = refunds_by_charge.charge_id
    left join disputes_by_charge
        on
            charges.merchant_id = disputes_by_charge.merchant_id
            and charges.charge_id = disputes_by_charge.charge_id
    left join fees_by_charge
        on
            charges.merchant_id = fees_by_charge.merchant_id
            and charges.charge_id = fees_by_charge.charge_id
)

select * from final
