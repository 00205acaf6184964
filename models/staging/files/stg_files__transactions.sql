with

source as (
    select * from {{ source('files', 'transactions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        transaction_id,
        merchant_id,
        customer_id,

        -- properties
        currency,
        payment_method,
        ip_country,
        device_type,
        status,
        anomaly_score,

        -- amounts
        amount_minor,

        -- flags
        is_fraud,
        _op = 'd' as is_deleted,

        -- times
        transaction_at,
        fraud_known_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
