with

customers as (
    select * from {{ ref('stg_oltp__customers') }}
),

inferred as (
    select * from {{ ref('int_customers_inferred') }}
),

described as (
    select
        {{ surrogate_key(["'oltp'", 'merchant_id', 'customer_id']) }} as customer_key,
        customer_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        merchant_token,
        coalesce(country, 'ZZ') as country,
        city,
        email_domain,
        has_marketing_consent,
        consent_at,
        retention_until,
        created_at,
        false as is_inferred,
        is_deleted
    from customers
),

mentioned as (
    select
        customer_key,
        customer_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        cast(null as text) as merchant_token,
        'ZZ' as country,
        cast(null as text) as city,
        cast(null as text) as email_domain,
        cast(null as boolean) as has_marketing_consent,
        cast(null as timestamptz) as consent_at,
        cast(null as date) as retention_until,
        cast(null as timestamptz) as created_at,
        true as is_inferred,
        false as is_deleted
    from inferred
),

unknown as (
    select
        {{ unknown_key() }} as customer_key,
        cast(null as text) as customer_id,
        {{ unknown_key() }} as merchant_key,
        cast(null as text) as merchant_id,
        cast(null as text) as merchant_token,
        'ZZ' as country,
        cast(null as text) as city,
        cast(null as text) as email_domain,
        cast(null as boolean) as has_marketing_consent,
        cast(null as timestamptz) as consent_at,
        cast(null as date) as retention_until,
        cast(null as timestamptz) as created_at,
        true as is_inferred,
        false as is_deleted
),

final as (
    select * from described
    union all
    select * from mentioned
    union all
    select * from unknown
)

select * from final
