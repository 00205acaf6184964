with

source as (
    select * from {{ source('oltp', 'early_fraud_warnings') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        early_fraud_warning_id,
        charge_id,

        -- properties
        fraud_type,

        -- flags
        is_actionable,
        _op = 'd' as is_deleted,

        -- times
        created_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
