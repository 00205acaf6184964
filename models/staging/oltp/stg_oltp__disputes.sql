with

source as (
    select * from {{ source('oltp', 'disputes') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        dispute_id,
        charge_id,

        -- properties
        currency,
        status,
        reason,
        version,

        -- amounts
        amount_minor,
        fee_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        evidence_due_at,
        closed_at,
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
