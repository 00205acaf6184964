with

payments as (
    select * from {{ ref('int_payments_converted') }}
),

final as (
    select
        -- keys
        payment_key,
        payment_id,
        source,
        merchant_key,
        merchant_id,
        customer_key,
        customer_id,

        -- properties
        payment_method_type,
        currency,
        status,
        failure_code,
        device_type,
        coalesce(ip_country, 'ZZ') as ip_country,

        -- times
        paid_at,
        paid_on,

        -- money
        amount_minor,
        captured_amount_minor,
        refunded_amount_minor,
        disputed_amount_minor,
        fee_minor,
        amount,
        rate_to_reporting,
        reporting_amount_minor,
        reporting_captured_amount_minor,

        -- fraud
        anomaly_score,
        is_fraud,
        fraud_known_at,

        -- lineage
        _batch_id
    from payments
)

select * from final
