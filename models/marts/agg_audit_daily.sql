with

audit_events as (
    select * from {{ ref('fct_access_audit') }}
),

final as (
    select
        {{ surrogate_key(['occurred_on', 'merchant_key', 'action', 'outcome']) }} as audit_daily_key,
        occurred_on as audited_on,
        merchant_key,
        action,
        outcome,
        count(*) as event_count,
        count(distinct actor_id) as actor_count
    from audit_events
    group by occurred_on, merchant_key, action, outcome
)

select * from final
