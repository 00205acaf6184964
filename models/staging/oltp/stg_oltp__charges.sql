with

source as (
    select * from {{ source('oltp', 'charges') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        charge_id,
        payment_intent_id,
        customer_id,
        payment_method_id,
        device_id,

        -- properties
        currency,
        status,
        failure_code,
        ip_country,
        ip_city,
        ip_network_token,
        device_type,
        anomaly_score,
        version,

        -- amounts
        amount_minor,
        amount_captured_minor,
        amount_refunded_minor,

        -- flags
        is_disputed,
        _op = 'd' as is_deleted,

        -- times
        captured_at,
        created_at,
        updated_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
