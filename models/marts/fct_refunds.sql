with

refunds as (
    select * from {{ ref('int_refunds_converted') }}
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

versioned as (
    {{ with_versions('refunds', 'refunds.refunded_at', ['merchant', 'customer']) }}
),

final as (
    select
        -- keys
        refund_key,
        refund_id,
        payment_key,
        payment_id,
        merchant_key,
        merchant_version_key,
        merchant_id,
        customer_key,
        customer_version_key,

        -- properties
        currency,
        status,
        reason,

        -- times
        refunded_at,
        refunded_on,

        -- money
        amount_minor,
        amount,
        rate_to_reporting,
        reporting_amount_minor,

        -- lineage
        _batch_id
    from versioned
)

select * from final
