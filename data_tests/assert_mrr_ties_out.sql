-- The movements up to a month add up to the revenue of that month, which is what subscriptions come to then; each month
-- opens with what the one before closed with.
-- Returns the months that differ.
with

subscriptions as (
    select
        merchant_id,
        currency,
        month_start_on,
        sum(mrr_minor) as mrr_minor
    from {{ ref('int_mrr_subscriptions') }}
    group by merchant_id, currency, month_start_on
),

movements as (
    select
        merchant_id,
        currency,
        month_start_on,
        sum(change_minor) as change_minor
    from {{ ref('fct_mrr_movements') }}
    group by merchant_id, currency, month_start_on
),

months as (
    select
        *,
        coalesce(
            lag(closing_mrr_minor) over (partition by merchant_id, currency order by month_start_on), 0
        ) as closed_before_minor
    from {{ ref('agg_mrr_monthly') }}
),

compared as (
    select
        coalesce(months.merchant_id, subscriptions.merchant_id) as merchant_id,
        coalesce(months.currency, subscriptions.currency) as currency,
        coalesce(months.month_start_on, subscriptions.month_start_on) as month_start_on,
        coalesce(months.opening_mrr_minor, 0) as opening_mrr_minor,
        coalesce(months.closing_mrr_minor, 0) as closing_mrr_minor,
        coalesce(months.closed_before_minor, 0) as closed_before_minor,
        coalesce(subscriptions.mrr_minor, 0) as subscriptions_mrr_minor,
        coalesce(
            sum(movements.change_minor) over (
                partition by months.merchant_id, months.currency
                order by months.month_start_on
            ),
            0
        ) as moved_minor
    from months
    full join subscriptions
        on
            months.merchant_id = subscriptions.merchant_id
            and months.currency = subscriptions.currency
            and months.month_start_on = subscriptions.month_start_on
    left join movements
        on
            months.merchant_id = movements.merchant_id
            and months.currency = movements.currency
            and months.month_start_on = movements.month_start_on
),

final as (
    select * from compared
    where
        opening_mrr_minor <> closed_before_minor
        or closing_mrr_minor <> subscriptions_mrr_minor
        or closing_mrr_minor <> moved_minor
)

select * from final
