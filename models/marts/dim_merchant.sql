with

merchants as (
    select * from {{ ref('stg_oltp__merchants') }}
),

inferred as (
    select * from {{ ref('int_merchants_inferred') }}
),

merchant_categories as (
    select * from {{ ref('merchant_categories') }}
),

described as (
    select
        {{ surrogate_key(['merchants.merchant_id']) }} as merchant_key,
        merchants.merchant_id,
        merchants.business_name,
        merchants.mcc,
        merchant_categories.category_name,
        merchant_categories.vertical,
        coalesce(merchants.country, 'ZZ') as country,
        coalesce(merchants.default_currency, 'XXX') as default_currency,
        merchants.status,
        merchants.fee_basis_points,
        merchants.fee_fixed_minor,
        merchants.created_at,
        false as is_inferred,
        merchants.is_deleted
    from merchants
    left join merchant_categories
        on merchants.mcc = merchant_categories.mcc
),

mentioned as (
    select
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        cast(null as text) as business_name,
        cast(null as text) as mcc,
        cast(null as text) as category_name,
        cast(null as text) as vertical,
        'ZZ' as country,
        'XXX' as default_currency,
        cast(null as text) as status,
        cast(null as integer) as fee_basis_points,
        cast(null as bigint) as fee_fixed_minor,
        cast(null as timestamptz) as created_at,
        true as is_inferred,
        false as is_deleted
    from inferred
),

unknown as (
    select
        {{ unknown_key() }} as merchant_key,
        cast(null as text) as merchant_id,
        'Unknown merchant' as business_name,
        cast(null as text) as mcc,
        cast(null as text) as category_name,
        cast(null as text) as vertical,
        'ZZ' as country,
        'XXX' as default_currency,
        cast(null as text) as status,
        cast(null as integer) as fee_basis_points,
        cast(null as bigint) as fee_fixed_minor,
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
