with

source as (
    select * from {{ source('documents', 'fraud_decisions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        charge_id,
        merchant_id,

        -- properties
        version,
        charge_version,
        currency,
        model_version,
        score,
        decision,
        reasons,
        features,
        latency_ms,
        outcome,
        schema_version,

        -- amounts
        amount_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        decided_at,
        outcome_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
