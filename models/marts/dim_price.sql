with

prices as (
    select * from {{ ref('stg_oltp__prices') }}
),

described as (
    select
        {{ surrogate_key(['merchant_id', 'price_id']) }} as price_key,
        price_id,
        case
            when product_id is null then {{ unknown_key() }}
            else {{ surrogate_key(['merchant_id', 'product_id']) }}
        end as product_key,
        product_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        coalesce(currency, 'XXX') as currency,
        billing_interval,
        interval_count,
        is_active,
        unit_amount_minor,
        {{ monthly_minor('unit_amount_minor', 'billing_interval', 'interval_count') }} as monthly_amount_minor,
        created_at,
        updated_at,
        is_deleted
    from prices
),

unknown as (
    select
        {{ unknown_key() }} as price_key,
        cast(null as text) as price_id,
        {{ unknown_key() }} as product_key,
        cast(null as text) as product_id,
        {{ unknown_key() }} as merchant_key,
        cast(null as text) as merchant_id,
        'XXX' as currency,
        cast(null as text) as billing_interval,
        cast(null as integer) as interval_count,
        cast(null as boolean) as is_active,
        cast(null as bigint) as unit_amount_minor,
        cast(null as bigint) as monthly_amount_minor,
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
