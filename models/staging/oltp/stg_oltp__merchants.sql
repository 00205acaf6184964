with

source as (
    select * from {{ source('oltp', 'merchants') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        mcc,

        -- properties
        business_name,
        country,
        default_currency,
        status,
        ledger_buckets,
        fee_basis_points,
        version,

        -- amounts
        fee_fixed_minor,

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
