-- What agg_product_performance says was invoiced and paid is what the invoices say, per currency: each line once, and
-- what was paid to the minor unit.
-- Returns the currencies where the sums differ.
with

invoices as (
    select * from {{ ref('stg_oltp__invoices') }}
    where
        not is_deleted
        and status in ('open', 'paid', 'uncollectible')
),

lines_by_invoice as (
    select
        merchant_id,
        invoice_id,
        currency,
        sum(quantity) as quantity,
        sum(amount_minor) as amount_minor
    from {{ ref('stg_oltp__invoice_lines') }}
    where not is_deleted
    group by merchant_id, invoice_id, currency
),

expected as (
    select
        lines_by_invoice.currency,
        sum(lines_by_invoice.quantity) as quantity,
        sum(lines_by_invoice.amount_minor) as amount_minor,
        sum(case when lines_by_invoice.amount_minor > 0 then invoices.amount_paid_minor else 0 end) as paid_minor
    from invoices
    inner join lines_by_invoice
        on
            invoices.merchant_id = lines_by_invoice.merchant_id
            and invoices.invoice_id = lines_by_invoice.invoice_id
    group by lines_by_invoice.currency
),

aggregates as (
    select
        currency,
        sum(invoiced_quantity) as quantity,
        sum(invoiced_amount_minor) as amount_minor,
        sum(paid_amount_minor) as paid_minor
    from {{ ref('agg_product_performance') }}
    group by currency
),

final as (
    select
        coalesce(expected.currency, aggregates.currency) as currency,
        expected.amount_minor as expected_minor,
        aggregates.amount_minor as aggregate_minor,
        expected.paid_minor as expected_paid_minor,
        aggregates.paid_minor as aggregate_paid_minor
    from expected
    full outer join aggregates
        on expected.currency = aggregates.currency
    where
        coalesce(expected.quantity, 0) <> coalesce(aggregates.quantity, 0)
        or coalesce(expected.amount_minor, 0) <> coalesce(aggregates.amount_minor, 0)
        or coalesce(expected.paid_minor, 0) <> coalesce(aggregates.paid_minor, 0)
)

select * from final
