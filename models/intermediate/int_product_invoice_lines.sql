with

invoice_lines as (
    select * from {{ ref('stg_oltp__invoice_lines') }}
    where not is_deleted
),

-- What was billed: a draft was not yet, a void invoice is no more.
invoices as (
    select * from {{ ref('stg_oltp__invoices') }}
    where
        not is_deleted
        and status in ('open', 'paid', 'uncollectible')
),

billed as (
    select
        invoice_lines.merchant_id,
        invoice_lines.invoice_line_id,
        invoice_lines.invoice_id,
        invoice_lines.price_id,
        invoice_lines.currency,
        invoice_lines.quantity,
        invoice_lines.amount_minor,
        invoices.amount_paid_minor as invoice_paid_minor,
        {{ utc_date('invoices.finalized_at') }} as invoiced_on,
        sum(invoice_lines.amount_minor) over (
            partition by invoice_lines.merchant_id, invoice_lines.invoice_id, invoice_lines.currency
            order by invoice_lines.invoice_line_id
            rows between unbounded preceding and current row
        ) as amount_so_far_minor,
        sum(invoice_lines.amount_minor) over (
            partition by invoice_lines.merchant_id, invoice_lines.invoice_id, invoice_lines.currency
        ) as invoice_amount_minor
    from invoice_lines
    inner join invoices
        on
            invoice_lines.merchant_id = invoices.merchant_id
            and invoice_lines.invoice_id = invoices.invoice_id
),

-- What was paid of an invoice is spread over its lines by their amounts: each line takes what is rounded up to and with
-- it, less what was rounded before it, so that the lines of an invoice add up to the minor unit.
spread as (
    select
        *,
        {{ divide_half_even(
            'cast(invoice_paid_minor as ' ~ type_wide_integer() ~ ') * amount_so_far_minor',
            'nullif(invoice_amount_minor, 0)'
        ) }} as paid_so_far_minor,
        {{ divide_half_even(
            'cast(invoice_paid_minor as ' ~ type_wide_integer() ~ ') * (amount_so_far_minor - amount_minor)',
            'nullif(invoice_amount_minor, 0)'
        ) }} as paid_before_minor
    from billed
),

final as (
    select
        merchant_id,
        invoice_line_id,
        invoice_id,
        price_id,
        currency,
        invoiced_on,
        quantity,
        amount_minor,
        coalesce(paid_so_far_minor - paid_before_minor, 0) as paid_amount_minor
    from spread
)

select * from final
