with

lines as (
    select * from {{ ref('stg_oltp__invoice_lines') }}
    where not is_deleted
),

invoices as (
    select * from {{ ref('int_invoices_converted') }}
),

prices as (
    select * from {{ ref('dim_price') }}
),

-- A line is at the rate of its invoice; of an invoice that has not landed there is no rate.
final as (
    select
        -- keys
        {{ surrogate_key(['lines.merchant_id', 'lines.invoice_line_id']) }} as invoice_line_key,
        lines.invoice_line_id,
        invoices.invoice_key,
        lines.invoice_id,
        {{ surrogate_key(['lines.merchant_id']) }} as merchant_key,
        lines.merchant_id,
        {{ customer_key_of('invoices.merchant_id', 'invoices.customer_id') }} as customer_key,
        coalesce(prices.price_key, {{ unknown_key() }}) as price_key,
        coalesce(prices.product_key, {{ unknown_key() }}) as product_key,

        -- ids
        lines.price_id,
        invoices.subscription_id,
        lines.subscription_item_id,

        -- properties
        lines.currency,
        lines.quantity,
        lines.is_proration,

        -- times
        lines.created_at,
        {{ utc_date('lines.created_at') }} as created_on,
        lines.period_start_at,
        lines.period_end_at,

        -- money
        lines.amount_minor,
        invoices.rate_to_reporting,
        {{ convert_minor(
            'lines.amount_minor', 'invoices.exponent', 'invoices.rate_to_reporting', 'invoices.reporting_exponent'
        ) }} as reporting_amount_minor,

        -- lineage
        lines._batch_id
    from lines
    left join invoices
        on
            lines.merchant_id = invoices.merchant_id
            and lines.invoice_id = invoices.invoice_id
    left join prices
        on
            lines.merchant_id = prices.merchant_id
            and lines.price_id = prices.price_id
)

select * from final
