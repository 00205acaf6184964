-- The lines of an invoice add up to its subtotal.
-- Returns the invoices whose lines do not.
with

lines as (
    select
        invoice_key,
        currency,
        sum(amount_minor) as amount_minor
    from {{ ref('fct_invoice_lines') }}
    group by invoice_key, currency
),

final as (
    select
        invoices.invoice_key,
        invoices.subtotal_minor,
        lines.amount_minor
    from {{ ref('fct_invoices') }} as invoices
    left join lines
        on
            invoices.invoice_key = lines.invoice_key
            and invoices.currency = lines.currency
    where invoices.subtotal_minor <> coalesce(lines.amount_minor, 0)
)

select * from final
