-- Which tier of a merchant's prices brings the subscription revenue: the entry, the top, or what lies between?
-- Prices of a merchant in one currency, by what they come to a month. Invoiced, not yet surely paid; credit for a
-- change within a period (proration) is included.
with

prices as (
    select * from {{ ref('dim_price') }}
    where monthly_amount_minor is not null
),

lines as (
    select * from {{ ref('fct_invoice_lines') }}
),

tiers as (
    select
        prices.price_key,
        prices.merchant_id,
        prices.currency,
        case
            when prices.monthly_amount_minor = min(prices.monthly_amount_minor) over (
                partition by prices.merchant_key, prices.currency
            ) then 'entry'
            when prices.monthly_amount_minor = max(prices.monthly_amount_minor) over (
                partition by prices.merchant_key, prices.currency
            ) then 'top'
            else 'middle'
        end as tier
    from prices
),

totals as (
    select
        tiers.merchant_id,
        tiers.currency,
        tiers.tier,
        count(distinct tiers.price_key) as price_count,
        count(distinct lines.subscription_id) as subscription_count,
        coalesce(sum(lines.quantity), 0) as quantity,
        coalesce(sum(lines.amount_minor), 0) as invoiced_amount_minor
    from tiers
    left join lines
        on
            tiers.price_key = lines.price_key
            and tiers.currency = lines.currency
    group by tiers.merchant_id, tiers.currency, tiers.tier
),

shares as (
    select
        totals.*,
        sum(totals.invoiced_amount_minor) over (
            partition by totals.merchant_id, totals.currency
        ) as all_invoiced_amount_minor
    from totals
),

final as (
    select
        merchant_id,
        currency,
        tier,
        price_count,
        subscription_count,
        quantity,
        invoiced_amount_minor,
        {{ basis_points('invoiced_amount_minor', 'greatest(all_invoiced_amount_minor, 0)') }} as share_basis_points
    from shares
)

select * from final
order by merchant_id, currency, tier
