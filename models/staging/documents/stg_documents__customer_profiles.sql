with

source as (
    select * from {{ source('documents', 'customer_profiles') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        customer_id,
        merchant_id,

        -- properties
        version,
        country,
        segment,
        payment_count,
        spent,
        recent_charges,
        schema_version,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        first_paid_at,
        last_paid_at,
        updated_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
