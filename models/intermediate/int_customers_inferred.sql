with

customers as (
    select * from {{ ref('stg_oltp__customers') }}
),

payments as (
    select * from {{ ref('int_payments_unioned') }}
),

documents as (
    {%- for collection in ['sessions', 'feedback', 'customer_profiles'] %}
        select
            merchant_id,
            customer_id
        from {{ ref('stg_documents__' ~ collection) }}
        where not is_deleted
        {%- if not loop.last %}
            union
        {%- endif %}
    {%- endfor %}
),

billed as (
    select
        merchant_id,
        customer_id
    from {{ ref('hist_subscriptions') }}

    union

    select
        merchant_id,
        customer_id
    from {{ ref('stg_oltp__invoices') }}
    where not is_deleted
),

described as (
    select {{ surrogate_key(["'oltp'", 'merchant_id', 'customer_id']) }} as customer_key
    from customers
),

-- Customers of files belong to no single merchant; those of the operational store always do.
mentions as (
    select
        customer_key,
        customer_id,
        case when source = 'oltp' then merchant_id end as merchant_id
    from payments

    union all

    select
        {{ customer_key_of('merchant_id', 'customer_id') }} as customer_key,
        customer_id,
        merchant_id
    from documents

    union all

    select
        {{ customer_key_of('merchant_id', 'customer_id') }} as customer_key,
        customer_id,
        merchant_id
    from billed
),

mentioned as (
    select
        customer_key,
        customer_id,
        max(merchant_id) as merchant_id
    from mentions
    where customer_id is not null
    group by customer_key, customer_id
),

final as (
    select mentioned.*
    from mentioned
    left join described
        on mentioned.customer_key = described.customer_key
    where described.customer_key is null
)

select * from final
