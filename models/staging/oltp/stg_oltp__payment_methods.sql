with

source as (
    select * from {{ source('oltp', 'payment_methods') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        payment_method_id,
        customer_id,

        -- properties
        type,
        brand,
        last4,
        exp_month,
        exp_year,
        funding,
        issuer_country,
        fingerprint,
        version,

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
