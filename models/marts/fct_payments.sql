with

payments as (
    select * from {{ ref('int_payments_converted') }}
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

versioned as (
    {{ with_versions('payments', 'payments.paid_at', ['merchant', 'customer']) }}
),

final as (
    {{ payment_facts('versioned') }}
)

select * from final
