with

payment_methods as (
    select * from {{ ref('stg_oltp__payment_methods') }}
),

payments as (
    select * from {{ ref('int_payments_unioned') }}
),

described as (
    select
        {{ payment_method_key_of('merchant_id', 'payment_method_id') }} as payment_method_key,
        payment_method_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        type as payment_method_type,
        brand,
        last4,
        exp_month,
        exp_year,
        funding,
        coalesce(issuer_country, 'ZZ') as issuer_country,
        created_at,
        false as is_inferred,
        is_deleted
    from payment_methods
),

-- Files name a kind of payment method and no merchant's own: one member stands for all of the kind.
mentions as (
    select
        payment_method_key,
        payment_method_id,
        case when source = 'oltp' then merchant_id end as merchant_id,
        case when source = 'files' then payment_method_type end as payment_method_type
    from payments
    where payment_method_key <> {{ unknown_key() }}

    union

    select
        {{ unknown_key() }} as payment_method_key,
        cast(null as text) as payment_method_id,
        cast(null as text) as merchant_id,
        cast(null as text) as payment_method_type
),

mentioned as (
    select
        mentions.payment_method_key,
        mentions.payment_method_id,
        {{ surrogate_key(['mentions.merchant_id']) }} as merchant_key,
        mentions.merchant_id,
        mentions.payment_method_type,
        cast(null as text) as brand,
        cast(null as text) as last4,
        cast(null as integer) as exp_month,
        cast(null as integer) as exp_year,
        cast(null as text) as funding,
        'ZZ' as issuer_country,
        cast(null as timestamptz) as created_at,
        true as is_inferred,
        false as is_deleted
    from mentions
    left join described
        on mentions.payment_method_key = described.payment_method_key
    where described.payment_method_key is null
),

final as (
    select * from described
    union all
    select * from mentioned
)

select * from final
