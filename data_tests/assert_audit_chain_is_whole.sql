-- The audit trail of a merchant is a chain: its links are numbered from 1 without a gap, and each holds the hash of the
-- one before it. A link that was removed at its source has landed and still counts. Returns the links that do not fit.
with

audit_events as (
    select * from {{ ref('stg_documents__audit_events') }}
),

linked as (
    select
        merchant_id,
        audit_event_id,
        sequence,
        previous_hash,
        row_number() over (partition by merchant_id order by sequence, audit_event_id) as expected_sequence,
        lag(hash) over (partition by merchant_id order by sequence, audit_event_id) as expected_previous_hash
    from audit_events
),

final as (
    select * from linked
    where
        sequence <> expected_sequence
        or previous_hash <> expected_previous_hash
)

select * from final
