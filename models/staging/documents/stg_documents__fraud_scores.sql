with

source as (
    select * from {{ source('documents', 'fraud_scores') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        fraud_score_id,
        payment_id,
        merchant_id,

        -- properties
        payment_key,
        model_version,
        score,
        decision,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        scored_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
