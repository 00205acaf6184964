with

source as (
    select * from {{ source('oltp', 'customers') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        customer_id,

        -- properties
        merchant_token,
        network_token,
        country,
        city,
        email_domain,
        version,

        -- flags
        has_marketing_consent,
        _op = 'd' as is_deleted,

        -- times
        consent_at,
        retention_until,
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
