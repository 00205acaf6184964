with

subscription_items as (
    select * from {{ ref('stg_oltp__subscription_items') }}
    where not is_deleted
),

-- An incomplete subscription never began.
subscriptions as (
    select * from {{ ref('stg_oltp__subscriptions') }}
    where
        not is_deleted
        and status not in ('incomplete', 'incomplete_expired')
),

clock as (
    select {{ as_of() }} as as_of_at
),

lives as (
    select
        subscription_items.merchant_id,
        subscription_items.subscription_item_id,
        subscription_items.subscription_id,
        subscription_items.price_id,
        subscription_items.quantity,
        subscriptions.currency,
        {{ period_start('month', utc_date('subscriptions.created_at')) }} as first_month_on,
        {{ period_start('month', utc_date('coalesce(subscriptions.ended_at, clock.as_of_at)')) }} as last_month_on,
        subscriptions.ended_at is null as is_running
    from subscription_items
    cross join clock
    inner join subscriptions
        on
            subscription_items.merchant_id = subscriptions.merchant_id
            and subscription_items.subscription_id = subscriptions.subscription_id
),

-- A subscription is there at the end of a month when it ended in a later one, or not at all.
final as (
    select
        lives.merchant_id,
        lives.subscription_item_id,
        lives.subscription_id,
        lives.price_id,
        lives.quantity,
        lives.currency,
        cast(lives.first_month_on + months.number * interval '1 month' as date) as month_start_on
    from lives
    cross join
        generate_series(
            0, (select coalesce(max({{ months_between('l.first_month_on', 'l.last_month_on') }}), 0) from lives as l)
        ) as months (number)
    where
        months.number < {{ months_between('lives.first_month_on', 'lives.last_month_on') }}
        or (lives.is_running and months.number = {{ months_between('lives.first_month_on', 'lives.last_month_on') }})
)

select * from final
