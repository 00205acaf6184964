with

disputes as (
    select * from {{ ref('int_disputes_converted') }}
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

versioned as (
    {{ with_versions('disputes', 'disputes.opened_at', ['merchant', 'customer']) }}
),

final as (
    select
        -- keys
        dispute_key,
        dispute_id,
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
        is_inquiry,
        status in ('warning_needs_response', 'warning_under_review', 'needs_response', 'under_review') as is_open,

        -- times
        opened_at,
        opened_on,
        evidence_due_at,
        closed_at,
        cast({{ utc_date('opened_at') }} - {{ utc_date('paid_at') }} as integer) as days_from_payment,
        cast({{ utc_date('closed_at') }} - {{ utc_date('opened_at') }} as integer) as days_to_close,

        -- money
        amount_minor,
        amount,
        fee_minor,
        rate_to_reporting,
        reporting_amount_minor,

        -- lineage
        _batch_id
    from versioned
)

select * from final
