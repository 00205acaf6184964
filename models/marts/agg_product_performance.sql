with

invoice_lines as (
    select * from {{ ref('int_product_invoice_lines') }}
),

subscriptions as (
    select * from {{ ref('int_product_subscriptions_monthly') }}
),

prices as (
    select * from {{ ref('stg_oltp__prices') }}
),

invoiced as (
    select
        {{ period_start('month', 'invoiced_on') }} as month_start_on,
        merchant_id,
        price_id,
        currency,
        count(*) as line_count,
        sum(quantity) as invoiced_quantity,
        sum(amount_minor) as invoiced_amount_minor,
        sum(paid_amount_minor) as paid_amount_minor,
        0 as active_subscription_count,
        0 as active_quantity
    from invoice_lines
    group by {{ period_start('month', 'invoiced_on') }}, merchant_id, price_id, currency
),

subscribed as (
    select
        month_start_on,
        merchant_id,
        price_id,
        currency,
        0 as line_count,
        0 as invoiced_quantity,
        0 as invoiced_amount_minor,
        0 as paid_amount_minor,
        count(distinct subscription_id) as active_subscription_count,
        sum(quantity) as active_quantity
    from subscriptions
    group by month_start_on, merchant_id, price_id, currency
),

both_sides as (
    select * from invoiced
    union all
    select * from subscribed
),

totals as (
    select
        month_start_on,
        merchant_id,
        price_id,
        currency,
        cast(sum(line_count) as bigint) as line_count,
        cast(sum(invoiced_quantity) as bigint) as invoiced_quantity,
        cast(sum(invoiced_amount_minor) as bigint) as invoiced_amount_minor,
        cast(sum(paid_amount_minor) as bigint) as paid_amount_minor,
        cast(sum(active_subscription_count) as bigint) as active_subscription_count,
        cast(sum(active_quantity) as bigint) as active_quantity
    from both_sides
    group by month_start_on, merchant_id, price_id, currency
),

final as (
    select
        -- keys
        {{ surrogate_key(['totals.month_start_on', 'totals.merchant_id', 'totals.price_id', 'totals.currency']) }}
            as product_performance_key,
        totals.month_start_on,
        {{ surrogate_key(['totals.merchant_id']) }} as merchant_key,
        totals.merchant_id,
        prices.product_id,
        totals.price_id,
        totals.currency,

        -- billing
        totals.line_count,
        totals.invoiced_quantity,
        totals.invoiced_amount_minor,
        totals.paid_amount_minor,
        {{ basis_points('totals.paid_amount_minor', 'totals.invoiced_amount_minor') }} as paid_rate_basis_points,

        -- subscriptions
        totals.active_subscription_count,
        totals.active_quantity
    from totals
    left join prices
        on
            totals.merchant_id = prices.merchant_id
            and totals.price_id = prices.price_id
)

select * from final
