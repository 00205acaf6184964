with

audit_events as (
    select * from {{ ref('stg_documents__audit_events') }}
    where not is_deleted
),

final as (
    select
        -- keys
        {{ surrogate_key(['audit_event_id']) }} as audit_event_key,
        audit_event_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,

        -- ids
        actor_id,
        target_id,

        -- properties
        sequence as chain_number,
        actor_type,
        action,
        target_type,
        outcome,

        -- times
        occurred_at,
        {{ utc_date('occurred_at') }} as occurred_on,

        -- lineage
        _batch_id
    from audit_events
)

select * from final
