with

source as (
    select * from {{ source('oltp', 'invoices') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        invoice_id,
        customer_id,
        subscription_id,
        payment_intent_id,

        -- properties
        currency,
        status,
        billing_reason,
        version,

        -- amounts
        subtotal_minor,
        discount_minor,
        total_minor,
        amount_paid_minor,
        amount_credited_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        due_at,
        finalized_at,
        paid_at,
        created_at,
        updated_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
