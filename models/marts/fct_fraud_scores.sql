with

fraud_scores as (
    select * from {{ ref('stg_documents__fraud_scores') }}
    where not is_deleted
),

payments as (
    select * from {{ ref('int_payments_converted') }}
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
        fraud_scores.fraud_score_id as fraud_score_key,
        payments.payment_key,
        fraud_scores.payment_id,
        coalesce(payments.merchant_key, {{ unknown_key() }}) as merchant_key,
        coalesce(payments.customer_key, {{ unknown_key() }}) as customer_key,
        {{ fraud_model_key_of('fraud_scores.model_version') }} as fraud_model_key,

        -- decision
        fraud_scores.model_version,
        fraud_scores.score,
        fraud_scores.decision,

        -- times
        fraud_scores.scored_at,
        {{ utc_date('fraud_scores.scored_at') }} as scored_on,

        -- outcome
        payments.is_fraud,
        payments.fraud_known_at,
        payments.currency,
        payments.amount_minor,
        payments.reporting_amount_minor,

        -- lineage
        fraud_scores._batch_id
    from fraud_scores
    left join payments
        on fraud_scores.payment_key = payments.payment_key
),

final as (
    {{ with_versions('facts', 'facts.scored_at', ['merchant', 'customer']) }}
)

select * from final
