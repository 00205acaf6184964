-- Which plans lose their subscribers, and how soon?
-- A subscription belongs to the price of its first invoice line; one that was never invoiced to none. Churned:
-- canceled, or given up as unpaid. Days to the end are the mean over what churned, in tenths.
with

events as (
    select * from {{ ref('fct_subscription_events') }}
),

lines as (
    select * from {{ ref('fct_invoice_lines') }}
    where
        subscription_id is not null
        and price_id is not null
),

prices as (
    select * from {{ ref('dim_price') }}
),

products as (
    select * from {{ ref('dim_product') }}
),

subscriptions as (
    select
        merchant_id,
        subscription_id,
        min(case when event_type = 'created' then occurred_at end) as created_at,
        min(case when event_type in ('canceled', 'unpaid') then occurred_at end) as churned_at
    from events
    group by merchant_id, subscription_id
),

ordered_lines as (
    select
        lines.*,
        row_number() over (
            partition by lines.merchant_id, lines.subscription_id
            order by lines.created_at, lines.invoice_line_id
        ) as place
    from lines
),

totals as (
    select
        subscriptions.merchant_id,
        first_lines.price_key,
        count(*) as subscription_count,
        count(subscriptions.churned_at) as churned_count,
        sum({{ utc_date('subscriptions.churned_at') }} - {{ utc_date('subscriptions.created_at') }}) as days_to_churn
    from subscriptions
    left join ordered_lines as first_lines
        on
            subscriptions.merchant_id = first_lines.merchant_id
            and subscriptions.subscription_id = first_lines.subscription_id
            and first_lines.place = 1
    group by subscriptions.merchant_id, first_lines.price_key
),

final as (
    select
        totals.merchant_id,
        coalesce(products.product_name, 'never invoiced') as product_name,
        coalesce(prices.price_id, '-') as price_id,
        prices.currency,
        prices.unit_amount_minor,
        totals.subscription_count,
        totals.churned_count,
        {{ basis_points('totals.churned_count', 'totals.subscription_count') }} as churn_rate_basis_points,
        {{ divide_half_even('10 * totals.days_to_churn', 'nullif(totals.churned_count, 0)') }}
            as mean_tenths_of_days_to_churn
    from totals
    left join prices
        on totals.price_key = prices.price_key
    left join products
        on prices.product_key = products.product_key
)

select * from final
order by merchant_id, product_name, price_id
