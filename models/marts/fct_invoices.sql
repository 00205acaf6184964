with

invoices as (
    select * from {{ ref('int_invoices_converted') }}
),

final as (
    select
        -- keys
        invoice_key,
        invoice_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        {{ customer_key_of('merchant_id', 'customer_id') }} as customer_key,
        customer_id,

        -- ids
        subscription_id,
        payment_intent_id,

        -- properties
        currency,
        status,
        billing_reason,

        -- times
        created_at,
        created_on,
        due_at,
        finalized_at,
        paid_at,

        -- money
        subtotal_minor,
        discount_minor,
        total_minor,
        amount_paid_minor,
        amount_credited_minor,
        case
            when status in ('open', 'uncollectible') then total_minor - amount_paid_minor - amount_credited_minor
            else 0
        end as amount_due_minor,
        rate_to_reporting,
        reporting_total_minor,
        reporting_amount_paid_minor,

        -- lineage
        _batch_id
    from invoices
)

select * from final
