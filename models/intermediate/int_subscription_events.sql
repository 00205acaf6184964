with

states as (
    select * from {{ ref('int_subscription_states') }}
),

items as (
    select * from {{ ref('hist_subscription_items') }}
),

beginnings as (
    select * from states
    where state_number = 1
),

changes as (
    select
        *,
        lag(status) over (partition by merchant_id, subscription_id order by state_number) as status_before,
        coalesce(
            lag(is_canceling) over (partition by merchant_id, subscription_id order by state_number), false
        ) as was_canceling
    from states
),

created as (
    select
        *,
        'created' as event_type
    from changes
    where state_number = 1
),

statuses as (
    select
        *,
        case
            when status = 'trialing' then 'trial_started'
            when status = 'active' and status_before in ('past_due', 'unpaid') then 'recovered'
            when status = 'active' and status_before = 'paused' then 'resumed'
            when status = 'active' then 'activated'
            when status = 'incomplete_expired' then 'expired'
            else status
        end as event_type
    from changes
    where
        status <> 'incomplete'
        and status is distinct from status_before
),

cancellations as (
    select
        *,
        case when is_canceling then 'cancellation_scheduled' else 'cancellation_withdrawn' end as event_type
    from changes
    where
        is_canceling <> was_canceling
        and status not in ('canceled', 'incomplete_expired')
),

of_subscriptions as (
    {%- for kind in ['created', 'statuses', 'cancellations'] %}
        select
            merchant_id,
            subscription_id,
            cast(null as text) as subscription_item_id,
            event_type,
            valid_from as occurred_at,
            is_inferred,
            status_before,
            status as status_after,
            cast(null as text) as price_id_before,
            cast(null as text) as price_id_after,
            cast(null as bigint) as quantity_before,
            cast(null as bigint) as quantity_after,
            _position,
            _batch_id
        from {{ kind }}
        {%- if not loop.last %}

            union all
        {% endif %}
    {%- endfor %}
),

items_in_order as (
    select
        *,
        lag(price_id) over (partition by merchant_id, subscription_item_id order by version_number) as former_price_id,
        lag(quantity) over (partition by merchant_id, subscription_item_id order by version_number) as former_quantity,
        coalesce(
            lag(is_deleted_at_end) over (partition by merchant_id, subscription_item_id order by version_number), true
        ) as is_beginning
    from items
),

-- What the subscription began with is no addition.
changes_of_items as (
    select
        items_in_order.*,
        case when not items_in_order.is_beginning then items_in_order.former_price_id end as price_id_before,
        case when not items_in_order.is_beginning then items_in_order.former_quantity end as quantity_before,
        items_in_order.is_beginning and items_in_order.valid_from > beginnings.valid_from as is_added
    from items_in_order
    left join beginnings
        on
            items_in_order.merchant_id = beginnings.merchant_id
            and items_in_order.subscription_id = beginnings.subscription_id
),

of_items as (
    {%- for event_type, condition in [
        ['item_added', 'is_added'],
        ['plan_changed', 'price_id <> price_id_before'],
        ['quantity_changed', 'quantity <> quantity_before'],
    ] %}
        select
            merchant_id,
            subscription_id,
            subscription_item_id,
            '{{ event_type }}' as event_type,
            valid_from as occurred_at,
            false as is_inferred,
            cast(null as text) as status_before,
            cast(null as text) as status_after,
            price_id_before,
            price_id as price_id_after,
            quantity_before,
            quantity as quantity_after,
            _position,
            _batch_id
        from changes_of_items
        where {{ condition }}

        union all
    {% endfor %}
    select
        merchant_id,
        subscription_id,
        subscription_item_id,
        'item_removed' as event_type,
        valid_to as occurred_at,
        false as is_inferred,
        cast(null as text) as status_before,
        cast(null as text) as status_after,
        price_id as price_id_before,
        cast(null as text) as price_id_after,
        quantity as quantity_before,
        cast(null as bigint) as quantity_after,
        _position,
        _batch_id
    from changes_of_items
    where is_deleted_at_end
),

events as (
    select * from of_subscriptions
    union all
    select * from of_items
),

final as (
    select
        events.*,
        beginnings.customer_id,
        coalesce(beginnings.currency, 'XXX') as currency
    from events
    left join beginnings
        on
            events.merchant_id = beginnings.merchant_id
            and events.subscription_id = beginnings.subscription_id
)

select * from final
