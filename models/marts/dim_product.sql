with

products as (
    select * from {{ ref('stg_oltp__products') }}
),

described as (
    select
        {{ surrogate_key(['merchant_id', 'product_id']) }} as product_key,
        product_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        product_name,
        is_active,
        created_at,
        updated_at,
        is_deleted
    from products
),

unknown as (
    select
        {{ unknown_key() }} as product_key,
        cast(null as text) as product_id,
        {{ unknown_key() }} as merchant_key,
        cast(null as text) as merchant_id,
        'Unknown product' as product_name,
        cast(null as boolean) as is_active,
        cast(null as timestamptz) as created_at,
        cast(null as timestamptz) as updated_at,
        false as is_deleted
),

final as (
    select * from described
    union all
    select * from unknown
)

select * from final
