{%- set minutes_10 = window_of(minutes=10) -%}
{%- set hour_1 = window_of(hours=1) -%}
{%- set day_1 = window_of(days=1) -%}
{%- set day_7 = window_of(days=7) -%}
{%- set day_14 = window_of(days=14) -%}
{%- set day_30 = window_of(days=30) -%}
{%- set label_delay = window_of(days=var('label_delay_days') | int) -%}

with

payments as (
    select * from {{ ref('int_payments_converted') }}
),

-- What is known of a payment at its own moment. Amounts of different currencies are comparable in the reporting
-- currency alone; without a book rate the amount stands for itself.
seen as (
    select
        payment_key,
        payment_id,
        source,
        merchant_id,
        customer_key,
        coalesce(person_token, case when customer_id is not null then customer_key end) as person,
        card_token,
        device_id,
        ip_network_token,
        currency,
        paid_at,
        is_fraud,
        fraud_known_at,
        anomaly_score,
        amount_minor,
        coalesce(reporting_amount_minor, amount_minor) as reporting_value_minor,
        case when status = 'failed' then 1 else 0 end as failed,
        device_type,
        ip_country,
        issuer_country,
        customer_country,
        {{ epoch_seconds('paid_at') }} as paid_second
    from payments
),

-- Entities are numbers from here on, for speed. A payment that names no person or merchant is its own: it has no
-- history.
keyed as (
    select
        *,
        coalesce(card_token, person, payment_key) as card_key,
        {{ entity_number('coalesce(person, payment_key)') }} as person_no,
        {{ entity_number('coalesce(card_token, person, payment_key)') }} as card_no,
        {{ entity_number('coalesce(merchant_id, payment_key)') }} as merchant_no,
        {{ entity_number('device_id') }} as device_no,
        {{ entity_number('ip_network_token') }} as network_no,
        paid_second * 1000000
        + row_number() over (partition by paid_second order by paid_at, payment_key) as order_key
    from seen
),

person_past as (
    select
        order_key,
        person_no,
        reporting_value_minor,
        failed,
        min(order_key) over (partition by person_no, merchant_no) = order_key as is_first_at_merchant,
        device_no is not null
        and min(order_key) over (partition by person_no, device_no) = order_key as is_first_on_device,
        ip_country is not null
        and min(order_key) over (partition by person_no, ip_country) = order_key as is_first_in_country,
        lag(paid_second) over person_order as previous_second,
        lag(ip_country) over person_order as previous_country,
        cast(count(*) over person_before as bigint) as past_count,
        {{ window_sum('reporting_value_minor', 'person_before') }} as past_sum,
        max(reporting_value_minor) over person_before as past_max
    from keyed
    window
        person_order as (partition by person_no order by order_key),
        person_before as {{ all_past('person_no') }}
),

-- Large is what is over three times the mean of the person's past.
person_flagged as (
    select
        *,
        case when past_count > 0 and reporting_value_minor * past_count > 3 * past_sum then 1 else 0 end as is_large
    from person_past
),

person_history as (
    select
        order_key,
        is_first_on_device,
        is_first_in_country,
        previous_second,
        previous_country,
        past_count,
        past_sum,
        past_max,
        cast(count(*) over person_1h as bigint) as payments_1h,
        cast(count(*) over person_1d as bigint) as payments_1d,
        cast(count(*) over person_7d as bigint) as payments_7d,
        cast(count(*) over person_30d as bigint) as payments_30d,
        {{ window_sum('reporting_value_minor', 'person_1d') }} as sum_1d,
        {{ window_sum('reporting_value_minor', 'person_7d') }} as sum_7d,
        {{ window_sum('reporting_value_minor', 'person_30d') }} as sum_30d,
        cast(count(*) over person_before_30d as bigint) as past_count_30d,
        {{ window_sum('reporting_value_minor', 'person_before_30d') }} as past_sum_30d,
        {{ window_sum('failed', 'person_before_1d') }} as failed_1d,
        {{ window_sum('is_large', 'person_before_14d') }} as large_14d,
        {{ window_sum('case when is_first_at_merchant then 1 else 0 end', 'person_1d') }} as new_merchants_1d
    from person_flagged
    window
        person_1h as {{ trailing('person_no', hour_1) }},
        person_1d as {{ trailing('person_no', day_1) }},
        person_7d as {{ trailing('person_no', day_7) }},
        person_30d as {{ trailing('person_no', day_30) }},
        person_before_1d as {{ trailing_past('person_no', day_1) }},
        person_before_14d as {{ trailing_past('person_no', day_14) }},
        person_before_30d as {{ trailing_past('person_no', day_30) }}
),

card_history as (
    select
        order_key,
        lag(paid_second) over card_order as previous_second,
        cast(count(*) over card_10m as bigint) as payments_10m,
        cast(count(*) over card_1h as bigint) as payments_1h,
        cast(count(*) over card_1d as bigint) as payments_1d,
        {{ window_sum('failed', 'card_before_1d') }} as failed_1d
    from keyed
    window
        card_order as (partition by card_no order by order_key),
        card_10m as {{ trailing('card_no', minutes_10) }},
        card_1h as {{ trailing('card_no', hour_1) }},
        card_1d as {{ trailing('card_no', day_1) }},
        card_before_1d as {{ trailing_past('card_no', day_1) }}
),

device_meetings as (
    select
        order_key,
        device_no,
        failed,
        case when min(order_key) over (partition by device_no, card_no) = order_key then 1 else 0 end as is_new_card
    from keyed
    where device_no is not null
),

device_history as (
    select
        order_key,
        cast(count(*) over device_1h as bigint) as payments_1h,
        cast(count(*) over device_1d as bigint) as payments_1d,
        {{ window_sum('is_new_card', 'device_1d') }} as new_cards_1d,
        {{ window_sum('failed', 'device_before_1d') }} as failed_1d
    from device_meetings
    window
        device_1h as {{ trailing('device_no', hour_1) }},
        device_1d as {{ trailing('device_no', day_1) }},
        device_before_1d as {{ trailing_past('device_no', day_1) }}
),

network_meetings as (
    select
        order_key,
        network_no,
        case when min(order_key) over (partition by network_no, card_no) = order_key then 1 else 0 end as is_new_card
    from keyed
    where network_no is not null
),

network_history as (
    select
        order_key,
        cast(count(*) over network_1h as bigint) as payments_1h,
        {{ window_sum('is_new_card', 'network_1h') }} as new_cards_1h
    from network_meetings
    window
        network_1h as {{ trailing('network_no', hour_1) }}
),

merchant_history as (
    select
        order_key,
        {{ window_sum('case when reporting_value_minor < 500 then 1 else 0 end', 'merchant_10m') }}
            as small_payments_10m,
        cast(count(*) over merchant_1h as bigint) as payments_1h,
        cast(count(*) over merchant_1d as bigint) as payments_1d,
        {{ window_sum('failed', 'merchant_before_1h') }} as failed_1h,
        cast(count(*) over merchant_before_30d as bigint) as past_count_30d,
        {{ window_sum('reporting_value_minor', 'merchant_before_30d') }} as past_sum_30d,
        cast(count(*) over merchant_matured_1d as bigint) as matured_1d,
        cast(count(*) over merchant_matured_7d as bigint) as matured_7d,
        cast(count(*) over merchant_matured_30d as bigint) as matured_30d
    from keyed
    window
        merchant_10m as {{ trailing('merchant_no', minutes_10) }},
        merchant_1h as {{ trailing('merchant_no', hour_1) }},
        merchant_1d as {{ trailing('merchant_no', day_1) }},
        merchant_before_1h as {{ trailing_past('merchant_no', hour_1) }},
        merchant_before_30d as {{ trailing_past('merchant_no', day_30) }},
        merchant_matured_1d as {{ trailing_delayed('merchant_no', day_1, label_delay) }},
        merchant_matured_7d as {{ trailing_delayed('merchant_no', day_7, label_delay) }},
        merchant_matured_30d as {{ trailing_delayed('merchant_no', day_30, label_delay) }}
),

-- A fraud label is an event of its own, at the moment it became known and not a second earlier. It comes before the
-- payments of that second, because those are numbered from one. Only entities that ever had a label need the stream
-- of both.
labels as (
    select
        merchant_no,
        person_no,
        card_no,
        {{ epoch_seconds_up('fraud_known_at') }} * 1000000 as order_key
    from keyed
    where is_fraud and fraud_known_at is not null
),

merchant_stream as (
    select
        merchant_no,
        order_key,
        0 as known_fraud
    from keyed
    where merchant_no in (select labels.merchant_no from labels)

    union all

    select
        merchant_no,
        order_key,
        1 as known_fraud
    from labels
),

merchant_frauds as (
    select
        order_key,
        known_fraud,
        {{ window_sum('known_fraud', 'merchant_1d') }} as known_1d,
        {{ window_sum('known_fraud', 'merchant_7d') }} as known_7d,
        {{ window_sum('known_fraud', 'merchant_30d') }} as known_30d,
        {{ window_sum('known_fraud', 'merchant_before') }} as known
    from merchant_stream
    window
        merchant_1d as {{ trailing('merchant_no', day_1) }},
        merchant_7d as {{ trailing('merchant_no', day_7) }},
        merchant_30d as {{ trailing('merchant_no', day_30) }},
        merchant_before as {{ all_past('merchant_no') }}
),

merchant_labels as (
    select * from merchant_frauds
    where known_fraud = 0
),

person_stream as (
    select
        person_no,
        order_key,
        0 as known_fraud
    from keyed
    where person_no in (select labels.person_no from labels)

    union all

    select
        person_no,
        order_key,
        1 as known_fraud
    from labels
),

person_frauds as (
    select
        order_key,
        known_fraud,
        {{ window_sum('known_fraud', 'person_before') }} as known
    from person_stream
    window
        person_before as {{ all_past('person_no') }}
),

person_labels as (
    select * from person_frauds
    where known_fraud = 0
),

card_stream as (
    select
        card_no,
        order_key,
        0 as known_fraud
    from keyed
    where card_no in (select labels.card_no from labels)

    union all

    select
        card_no,
        order_key,
        1 as known_fraud
    from labels
),

card_frauds as (
    select
        order_key,
        known_fraud,
        {{ window_sum('known_fraud', 'card_before') }} as known
    from card_stream
    window
        card_before as {{ all_past('card_no') }}
),

card_labels as (
    select * from card_frauds
    where known_fraud = 0
),

final as (
    select
        -- who and when; not features
        keyed.payment_key,
        keyed.payment_id,
        keyed.source,
        keyed.merchant_id,
        keyed.customer_key,
        keyed.card_key,
        keyed.amount_minor,
        keyed.currency,
        keyed.order_key,
        keyed.paid_at,
        keyed.is_fraud,
        keyed.fraud_known_at,

        -- the payment itself
        keyed.reporting_value_minor,
        keyed.anomaly_score,
        cast(extract(hour from keyed.paid_at at time zone 'UTC') as bigint) as hour_of_day,
        cast(extract(isodow from keyed.paid_at at time zone 'UTC') as bigint) as day_of_week,
        {{ flag("extract(isodow from keyed.paid_at at time zone 'UTC') >= 6") }} as is_weekend,
        {{ flag("extract(hour from keyed.paid_at at time zone 'UTC') <= 6") }} as is_night,
        {{ flag("keyed.device_type = 'terminal'") }} as is_at_terminal,

        -- customer: velocity and amounts, the payment included
        person_history.payments_1h as customer_payments_1h,
        person_history.payments_1d as customer_payments_1d,
        person_history.payments_7d as customer_payments_7d,
        person_history.payments_30d as customer_payments_30d,
        {{ ratio('person_history.sum_1d', 'person_history.payments_1d') }} as customer_mean_value_1d,
        {{ ratio('person_history.sum_7d', 'person_history.payments_7d') }} as customer_mean_value_7d,
        {{ ratio('person_history.sum_30d', 'person_history.payments_30d') }} as customer_mean_value_30d,
        person_history.failed_1d as customer_failed_1d,
        person_history.new_merchants_1d as customer_new_merchants_1d,

        -- customer: deviation of the amount from the past alone
        person_history.past_count as customer_past_payments,
        {{ ratio(
            'keyed.reporting_value_minor * person_history.past_count', 'person_history.past_sum'
        ) }} as value_to_customer_mean,
        {{ ratio(
            'keyed.reporting_value_minor * person_history.past_count_30d', 'person_history.past_sum_30d'
        ) }} as value_to_customer_mean_30d,
        {{ ratio('keyed.reporting_value_minor', 'person_history.past_max') }} as value_to_customer_max,
        person_history.large_14d as customer_large_payments_14d,
        keyed.paid_second - person_history.previous_second as customer_seconds_since_previous,

        -- card
        card_history.payments_10m as card_payments_10m,
        card_history.payments_1h as card_payments_1h,
        card_history.payments_1d as card_payments_1d,
        card_history.failed_1d as card_failed_1d,
        keyed.paid_second - card_history.previous_second as card_seconds_since_previous,

        -- device and network
        {{ flag('person_history.is_first_on_device and person_history.past_count > 0') }} as is_new_device,
        coalesce(device_history.payments_1h, 1) as device_payments_1h,
        coalesce(device_history.payments_1d, 1) as device_payments_1d,
        coalesce(device_history.new_cards_1d, 1) as device_new_cards_1d,
        coalesce(device_history.failed_1d, 0) as device_failed_1d,
        coalesce(network_history.payments_1h, 1) as network_payments_1h,
        coalesce(network_history.new_cards_1h, 1) as network_new_cards_1h,

        -- place
        {{ flag('person_history.is_first_in_country and person_history.past_count > 0') }} as is_new_country,
        {{ flag('keyed.ip_country <> person_history.previous_country') }} as is_country_changed,
        {{ flag('keyed.ip_country <> keyed.issuer_country') }} as is_outside_issuer_country,
        {{ flag('keyed.ip_country <> keyed.customer_country') }} as is_outside_home_country,

        -- merchant: velocity, amounts, and fraud as far as it was known
        merchant_history.small_payments_10m as merchant_small_payments_10m,
        merchant_history.payments_1h as merchant_payments_1h,
        merchant_history.payments_1d as merchant_payments_1d,
        merchant_history.failed_1h as merchant_failed_1h,
        {{ ratio(
            'keyed.reporting_value_minor * merchant_history.past_count_30d', 'merchant_history.past_sum_30d'
        ) }} as value_to_merchant_mean_30d,
        merchant_history.matured_1d as merchant_matured_payments_1d,
        merchant_history.matured_7d as merchant_matured_payments_7d,
        merchant_history.matured_30d as merchant_matured_payments_30d,
        coalesce(merchant_labels.known_1d, 0) as merchant_known_frauds_1d,
        coalesce(merchant_labels.known_7d, 0) as merchant_known_frauds_7d,
        coalesce(merchant_labels.known_30d, 0) as merchant_known_frauds_30d,
        coalesce(merchant_labels.known, 0) as merchant_known_frauds,
        coalesce({{ ratio('merchant_labels.known_1d', 'merchant_history.matured_1d') }}, 0) as merchant_fraud_risk_1d,
        coalesce({{ ratio('merchant_labels.known_7d', 'merchant_history.matured_7d') }}, 0) as merchant_fraud_risk_7d,
        coalesce({{ ratio(
            'merchant_labels.known_30d', 'merchant_history.matured_30d'
        ) }}, 0) as merchant_fraud_risk_30d,

        -- customer and card: fraud as far as it was known
        coalesce(person_labels.known, 0) as customer_known_frauds,
        coalesce(card_labels.known, 0) as card_known_frauds
    from keyed
    inner join person_history
        on keyed.order_key = person_history.order_key
    inner join card_history
        on keyed.order_key = card_history.order_key
    inner join merchant_history
        on keyed.order_key = merchant_history.order_key
    left join device_history
        on keyed.order_key = device_history.order_key
    left join network_history
        on keyed.order_key = network_history.order_key
    left join merchant_labels
        on keyed.order_key = merchant_labels.order_key
    left join person_labels
        on keyed.order_key = person_labels.order_key
    left join card_labels
        on keyed.order_key = card_labels.order_key
)

select * from final
