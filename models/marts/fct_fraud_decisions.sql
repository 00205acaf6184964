with

fraud_decisions as (
    select
        *,
        {{ surrogate_key(["'oltp'", 'merchant_id', 'charge_id']) }} as charge_key
    from {{ ref('stg_documents__fraud_decisions') }}
    where not is_deleted
),

payments as (
    select * from {{ ref('int_payments_converted') }}
    where source = 'oltp'
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

facts as (
    select
        -- keys
        {{ surrogate_key(['fraud_decisions.charge_id']) }} as fraud_decision_key,
        payments.payment_key,
        fraud_decisions.charge_id as payment_id,
        {{ surrogate_key(['fraud_decisions.merchant_id']) }} as merchant_key,
        fraud_decisions.merchant_id,
        coalesce(payments.customer_key, {{ unknown_key() }}) as customer_key,
        {{ fraud_model_key_of('fraud_decisions.model_version') }} as fraud_model_key,

        -- decision
        fraud_decisions.model_version,
        fraud_decisions.score,
        fraud_decisions.decision,
        fraud_decisions.latency_ms,

        -- outcome: to stop a payment, or to have a person look at it, is right when it was a fraud
        fraud_decisions.outcome,
        case
            when fraud_decisions.outcome is not null
                then (fraud_decisions.decision <> 'allow') = (fraud_decisions.outcome = 'fraud')
        end as is_right,
        payments.is_fraud,

        -- times
        fraud_decisions.decided_at,
        {{ utc_date('fraud_decisions.decided_at') }} as decided_on,
        fraud_decisions.outcome_at,
        cast(
            {{ utc_date('fraud_decisions.outcome_at') }} - {{ utc_date('fraud_decisions.decided_at') }} as integer
        ) as days_to_outcome,

        -- money
        fraud_decisions.currency,
        fraud_decisions.amount_minor,
        payments.reporting_amount_minor,

        -- lineage
        fraud_decisions._batch_id
    from fraud_decisions
    left join payments
        on fraud_decisions.charge_key = payments.payment_key
),

final as (
    {{ with_versions('facts', 'facts.decided_at', ['merchant', 'customer']) }}
)

select * from final
