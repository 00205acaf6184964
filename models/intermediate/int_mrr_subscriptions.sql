with

states as (
    select * from {{ ref('int_subscription_states') }}
    where status in ('active', 'past_due')
),

items as (
    select * from {{ ref('hist_subscription_items') }}
),

prices as (
    select * from {{ ref('hist_prices') }}
    where billing_interval is not null
),

-- A coupon of one bill takes nothing off what recurs.
coupons as (
    select * from {{ ref('stg_oltp__coupons') }}
    where duration <> 'once'
),

discounts as (
    select * from {{ ref('stg_oltp__discounts') }}
    where not is_deleted
),

months as (
    select * from {{ ref('int_mrr_months') }}
),

standing as (
    select
        months.month_start_on,
        months.measured_at,
        states.merchant_id,
        states.customer_id,
        states.subscription_id
    from months
    inner join states
        on
            months.measured_at >= states.valid_from
            and (months.measured_at < states.valid_to or states.valid_to is null)
),

priced as (
    select
        standing.*,
        prices.currency,
        prices.billing_interval,
        prices.interval_count,
        {{ monthly_minor(
            'cast(prices.unit_amount_minor as ' ~ type_wide_integer() ~ ') * items.quantity',
            'prices.billing_interval',
            'prices.interval_count'
        ) }} as monthly_minor
    from standing
    inner join items
        on
            standing.merchant_id = items.merchant_id
            and standing.subscription_id = items.subscription_id
            and standing.measured_at >= items.valid_from
            and (standing.measured_at < items.valid_to or items.valid_to is null)
    inner join prices
        on
            items.merchant_id = prices.merchant_id
            and items.price_id = prices.price_id
            and standing.measured_at >= prices.valid_from
            and (standing.measured_at < prices.valid_to or prices.valid_to is null)
),

-- An amount comes off every bill: as often as what is billed most often, and only in its own currency.
discounted as (
    select
        priced.merchant_id,
        priced.subscription_id,
        priced.currency,
        priced.month_start_on,
        discounts.discount_id,
        max(coupons.percent_off_basis_points) as percent_off_basis_points,
        max(
            case
                when coupons.currency = priced.currency
                    then {{ monthly_minor(
                        'coupons.amount_off_minor', 'priced.billing_interval', 'priced.interval_count'
                    ) }}
            end
        ) as amount_off_minor
    from priced
    inner join discounts
        on
            priced.merchant_id = discounts.merchant_id
            and priced.subscription_id = discounts.subscription_id
            and priced.measured_at >= discounts.starts_at
            and (priced.measured_at < discounts.ends_at or discounts.ends_at is null)
    inner join coupons
        on
            discounts.merchant_id = coupons.merchant_id
            and discounts.coupon_id = coupons.coupon_id
    group by
        priced.merchant_id,
        priced.subscription_id,
        priced.currency,
        priced.month_start_on,
        discounts.discount_id
),

-- Shares add up, as they do on a bill.
off as (
    select
        merchant_id,
        subscription_id,
        currency,
        month_start_on,
        coalesce(sum(percent_off_basis_points), 0) as percent_off_basis_points,
        coalesce(sum(amount_off_minor), 0) as amount_off_minor
    from discounted
    group by merchant_id, subscription_id, currency, month_start_on
),

gross as (
    select
        merchant_id,
        customer_id,
        subscription_id,
        currency,
        month_start_on,
        measured_at,
        cast(sum(monthly_minor) as bigint) as gross_mrr_minor
    from priced
    group by merchant_id, customer_id, subscription_id, currency, month_start_on, measured_at
),

reduced as (
    select
        gross.*,
        least(
            {{ divide_half_even(
                'gross.gross_mrr_minor * cast(coalesce(off.percent_off_basis_points, 0) as '
                ~ type_wide_integer() ~ ')',
                10000
            ) }} + cast(coalesce(off.amount_off_minor, 0) as bigint),
            gross.gross_mrr_minor
        ) as discount_minor
    from gross
    left join off
        on
            gross.merchant_id = off.merchant_id
            and gross.subscription_id = off.subscription_id
            and gross.currency = off.currency
            and gross.month_start_on = off.month_start_on
),

final as (
    select
        reduced.*,
        reduced.gross_mrr_minor - reduced.discount_minor as mrr_minor
    from reduced
)

select * from final
