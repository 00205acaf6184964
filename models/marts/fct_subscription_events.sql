with

events as (
    select * from {{ ref('int_subscription_events') }}
),

final as (
    select
        -- keys
        {{ surrogate_key([
            'merchant_id', 'subscription_id', 'subscription_item_id', '_position', 'event_type'
        ]) }} as subscription_event_key,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        {{ customer_key_of('merchant_id', 'customer_id') }} as customer_key,
        customer_id,
        case
            when price_id_before is not null then {{ surrogate_key(['merchant_id', 'price_id_before']) }}
        end as price_key_before,
        case
            when price_id_after is not null then {{ surrogate_key(['merchant_id', 'price_id_after']) }}
        end as price_key_after,

        -- ids
        subscription_id,
        subscription_item_id,

        -- properties
        event_type,
        currency,
        status_before,
        status_after,
        quantity_before,
        quantity_after,
        is_inferred,

        -- times
        occurred_at,
        {{ utc_date('occurred_at') }} as occurred_on,

        -- lineage
        _batch_id
    from events
)

select * from final
