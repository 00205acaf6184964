with

source as (
    select * from {{ source('documents', 'feedback') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        feedback_id,
        merchant_id,
        customer_id,
        charge_id,

        -- properties
        kind,
        rating,
        topic,
        sentiment,
        language,
        answers,
        message_count,
        charge_version,
        customer_version,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        submitted_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
