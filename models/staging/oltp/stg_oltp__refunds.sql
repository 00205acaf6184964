with

source as (
    select * from {{ source('oltp', 'refunds') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        refund_id,
        charge_id,

        -- properties
        currency,
        status,
        failure_reason,
        reason,
        version,

        -- amounts
        amount_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
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
