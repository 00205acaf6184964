with

invoice_lines as (
    select * from {{ ref('int_product_invoice_lines') }}
),

subscription_items as (
    select * from {{ ref('int_product_subscription_items') }}
),

prices as (
    select * from {{ ref('stg_oltp__prices') }}
),

clock as (
    select {{ utc_date(as_of()) }} as today
),

-- A subscription is there at the end of every month from that of its beginning until before that of its end; one that
-- runs is there in the as-of month as well.
lives as (
    select
        subscription_items.*,
        {{ period_start('month', 'subscription_items.began_on') }} as first_month_on,
        {{ months_between('subscription_items.began_on', 'coalesce(subscription_items.ended_on, clock.today)') }}
        - case when subscription_items.ended_on is null then 0 else 1 end as last_months_since
    from subscription_items
    cross join clock
),

monthly as (
    select
        lives.*,
        cast(lives.first_month_on + months.months_since * interval '1 month' as date) as month_start_on
    from lives
    cross join
        generate_series(0, (select coalesce(max(all_lives.last_months_since), 0) from lives as all_lives))
            as months (months_since)
    where months.months_since <= lives.last_months_since
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
    from monthly
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
