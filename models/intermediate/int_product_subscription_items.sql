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

final as (
    select
        subscription_items.merchant_id,
        subscription_items.subscription_item_id,
        subscription_items.subscription_id,
        subscription_items.price_id,
        subscription_items.quantity,
        subscriptions.currency,
        {{ utc_date('subscriptions.created_at') }} as began_on,
        {{ utc_date('subscriptions.ended_at') }} as ended_on
    from subscription_items
    inner join subscriptions
        on
            subscription_items.merchant_id = subscriptions.merchant_id
            and subscription_items.subscription_id = subscriptions.subscription_id
)

select * from final
