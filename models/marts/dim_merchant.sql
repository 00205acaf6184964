with

merchants as (
    select * from {{ ref('stg_oltp__merchants') }}
),

inferred as (
    select * from {{ ref('int_merchants_inferred') }}
),

merchant_categories as (
    select * from {{ ref('dim_merchant_category') }}
),

described as (
    select
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        business_name,
        coalesce(mcc, '0000') as mcc,
        coalesce(country, 'ZZ') as country,
        coalesce(default_currency, 'XXX') as default_currency,
        status,
        fee_basis_points,
        fee_fixed_minor,
        created_at,
        false as is_inferred,
        is_deleted
    from merchants
),

mentioned as (
    select
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        cast(null as text) as business_name,
        '0000' as mcc,
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
        '0000' as mcc,
        'ZZ' as country,
        'XXX' as default_currency,
        cast(null as text) as status,
        cast(null as integer) as fee_basis_points,
        cast(null as bigint) as fee_fixed_minor,
        cast(null as timestamptz) as created_at,
        true as is_inferred,
        false as is_deleted
),

members as (
    select * from described
    union all
    select * from mentioned
    union all
    select * from unknown
),

final as (
    select
        members.merchant_key,
        members.merchant_id,
        members.business_name,
        members.mcc,
        merchant_categories.category_name,
        merchant_categories.vertical,
        members.country,
        members.default_currency,
        members.status,
        members.fee_basis_points,
        members.fee_fixed_minor,
        members.created_at,
        members.is_inferred,
        members.is_deleted
    from members
    left join merchant_categories
        on members.mcc = merchant_categories.mcc
)

select * from final
