with

source as (
    select * from {{ source('oltp', 'merchants') }}
),

versions as (
    {{ versions_from_log('source') }}
),

final as (
    select
        -- keys
        {{ surrogate_key(['merchant_id', '_position']) }} as merchant_version_key,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,

        -- ids
        merchant_id,

        -- properties
        mcc,
        business_name,
        country,
        default_currency,
        status,
        ledger_buckets,
        fee_basis_points,
        version,

        -- amounts
        fee_fixed_minor,

        -- times
        created_at,
        updated_at,

        {{ version_columns() }}
    from versions
)

select * from final
