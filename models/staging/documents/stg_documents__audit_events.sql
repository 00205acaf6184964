with

source as (
    select * from {{ source('documents', 'audit_events') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        audit_event_id,
        merchant_id,

        -- properties
        sequence,
        actor_type,
        actor_id,
        action,
        target_type,
        target_id,
        outcome,
        previous_hash,
        hash,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        occurred_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
