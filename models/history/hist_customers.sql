with

source as (
    select * from {{ source('oltp', 'customers') }}
),

versions as (
    {{ versions_from_log('source') }}
),

final as (
    select
        -- keys
        {{ surrogate_key(['merchant_id', 'customer_id', '_position']) }} as customer_version_key,
        {{ surrogate_key(["'oltp'", 'merchant_id', 'customer_id']) }} as customer_key,

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

        -- times
        consent_at,
        retention_until,
        created_at,
        updated_at,

        {{ version_columns() }}
    from versions
)

select * from final
