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

-- What is known of a payment at its own moment. An entity that a payment does not name is the payment itself: it has no history.
-- Amounts of different currencies are comparable in the reporting currency alone; without a book rate the amount stands for itself.
seen as (
    select
        payment_key,
        payment_id,
        source,
        merchant_id,
        customer_key,
        currency,
        paid_at,
        is_fraud,
        fraud_known_at,
        anomaly_score,
        amount_minor,
        coalesce(reporting_amount_minor, amount_minor) as value_minor,
        case when status = 'failed' then 1 else 0 end as failed,
        coalesce(merchant_id, payment_key) as merchant_entity,
        coalesce(person_token, case when customer_id is not null then customer_key end, payment_key) as person_entity,
        coalesce(
            card_token, person_token, case when customer_id is not null then customer_key end, payment_key
        ) as card_key,
        device_id,
        coalesce(device_id, payment_key) as device_entity,
        coalesce(ip_network_token, payment_key) as network_entity,
        device_type,
        ip_country,
        issuer_country,
        customer_country,
        {{ epoch_seconds('paid_at') }} as paid_second
    from payments
),

keyed as (
    select
        *,
        paid_second * 1000000
        + row_number() over (partition by paid_second order by paid_at, payment_key) as order_key
    from seen
),

-- First meetings, and the past that a payment is measured against.
placed as (
    select
        *,
        row_number() over (partition by person_entity, device_entity order by order_key) as device_meeting,
        row_number() over (partition by person_entity, ip_country order by order_key) as country_meeting,
        row_number() over (partition by card_key, device_entity order by order_key) as card_on_device_meeting,
        row_number() over (partition by card_key, network_entity order by order_key) as card_on_network_meeting,
        row_number() over (partition by person_entity, merchant_entity order by order_key) as merchant_meeting,
        lag(paid_second) over person_order as previous_person_second,
        lag(ip_country) over person_order as previous_ip_country,
        lag(paid_second) over card_order as previous_card_second,
        cast(count(*) over person_past as bigint) as person_past_count,
        {{ window_sum('value_minor', 'person_past') }} as person_past_sum,
        max(value_minor) over person_past as person_past_max
    from keyed
    window
        person_order as (partition by person_entity order by order_key),
        card_order as (partition by card_key order by order_key),
        person_past as {{ all_past('person_entity') }}
),

-- Unusually large for its person: more than three times the mean of the person's past.
flagged as (
    select
        *,
        case when value_minor * person_past_count > 3 * person_past_sum and person_past_count > 0 then 1 else 0 end
            as large,
        case when value_minor < 500 then 1 else 0 end as small,
        case when card_on_device_meeting = 1 then 1 else 0 end as new_card_on_device,
        case when card_on_network_meeting = 1 then 1 else 0 end as new_card_on_network
    from placed
),

windowed as (
    select
        *,
        cast(count(*) over person_1h as bigint) as customer_payments_1h,
        cast(count(*) over person_1d as bigint) as customer_payments_1d,
        cast(count(*) over person_7d as bigint) as customer_payments_7d,
        cast(count(*) over person_30d as bigint) as customer_payments_30d,
        {{ window_sum('value_minor', 'person_1d') }} as person_sum_1d,
        {{ window_sum('value_minor', 'person_7d') }} as person_sum_7d,
        {{ window_sum('value_minor', 'person_30d') }} as person_sum_30d,
        cast(count(*) over person_past_30d as bigint) as person_past_count_30d,
        {{ window_sum('value_minor', 'person_past_30d') }} as person_past_sum_30d,
        {{ window_sum('failed', 'person_past_1d') }} as customer_failed_1d,
        {{ window_sum('large', 'person_past_14d') }} as customer_large_payments_14d,
        {{ window_sum('case when merchant_meeting = 1 then 1 else 0 end', 'person_1d') }} as customer_new_merchants_1d,
        cast(count(*) over card_10m as bigint) as card_payments_10m,
        cast(count(*) over card_1h as bigint) as card_payments_1h,
        cast(count(*) over card_1d as bigint) as card_payments_1d,
        {{ window_sum('failed', 'card_past_1d') }} as card_failed_1d,
        cast(count(*) over device_1h as bigint) as device_payments_1h,
        cast(count(*) over device_1d as bigint) as device_payments_1d,
        {{ window_sum('new_card_on_device', 'device_1d') }} as device_new_cards_1d,
        {{ window_sum('failed', 'device_past_1d') }} as device_failed_1d,
        cast(count(*) over network_1h as bigint) as network_payments_1h,
        {{ window_sum('new_card_on_network', 'network_1h') }} as network_new_cards_1h,
        {{ window_sum('small', 'merchant_10m') }} as merchant_small_payments_10m,
        cast(count(*) over merchant_1h as bigint) as merchant_payments_1h,
        cast(count(*) over merchant_1d as bigint) as merchant_payments_1d,
        {{ window_sum('failed', 'merchant_past_1h') }} as merchant_failed_1h,
        cast(count(*) over merchant_past_30d as bigint) as merchant_past_count_30d,
        {{ window_sum('value_minor', 'merchant_past_30d') }} as merchant_past_sum_30d,
        cast(count(*) over merchant_matured_1d as bigint) as merchant_matured_payments_1d,
        cast(count(*) over merchant_matured_7d as bigint) as merchant_matured_payments_7d,
        cast(count(*) over merchant_matured_30d as bigint) as merchant_matured_payments_30d
    from flagged
    window
        person_1h as {{ trailing('person_entity', hour_1) }},
        person_1d as {{ trailing('person_entity', day_1) }},
        person_7d as {{ trailing('person_entity', day_7) }},
        person_30d as {{ trailing('person_entity', day_30) }},
        person_past_1d as {{ trailing_past('person_entity', day_1) }},
        person_past_14d as {{ trailing_past('person_entity', day_14) }},
        person_past_30d as {{ trailing_past('person_entity', day_30) }},
        card_10m as {{ trailing('card_key', minutes_10) }},
        card_1h as {{ trailing('card_key', hour_1) }},
        card_1d as {{ trailing('card_key', day_1) }},
        card_past_1d as {{ trailing_past('card_key', day_1) }},
        device_1h as {{ trailing('device_entity', hour_1) }},
        device_1d as {{ trailing('device_entity', day_1) }},
        device_past_1d as {{ trailing_past('device_entity', day_1) }},
        network_1h as {{ trailing('network_entity', hour_1) }},
        merchant_10m as {{ trailing('merchant_entity', minutes_10) }},
        merchant_1h as {{ trailing('merchant_entity', hour_1) }},
        merchant_1d as {{ trailing('merchant_entity', day_1) }},
        merchant_past_1h as {{ trailing_past('merchant_entity', hour_1) }},
        merchant_past_30d as {{ trailing_past('merchant_entity', day_30) }},
        merchant_matured_1d as {{ trailing_delayed('merchant_entity', day_1, label_delay) }},
        merchant_matured_7d as {{ trailing_delayed('merchant_entity', day_7, label_delay) }},
        merchant_matured_30d as {{ trailing_delayed('merchant_entity', day_30, label_delay) }}
),

-- A fraud label is an event of its own, at the moment it became known and not a second earlier. It comes before the payments of
-- that second, because those are numbered from one.
labels as (
    select
        merchant_entity,
        person_entity,
        card_key,
        {{ epoch_seconds_up('fraud_known_at') }} * 1000000 as order_key
    from keyed
    where is_fraud and fraud_known_at is not null
),

merchant_stream as (
    select
        payment_key,
        merchant_entity,
        order_key,
        0 as known_fraud
    from keyed

    union all

    select
        cast(null as text) as payment_key,
        merchant_entity,
        order_key,
        1 as known_fraud
    from labels
),

merchant_labels as (
    select
        payment_key,
        {{ window_sum('known_fraud', 'merchant_1d') }} as merchant_known_frauds_1d,
        {{ window_sum('known_fraud', 'merchant_7d') }} as merchant_known_frauds_7d,
        {{ window_sum('known_fraud', 'merchant_30d') }} as merchant_known_frauds_30d,
        {{ window_sum('known_fraud', 'merchant_past') }} as merchant_known_frauds
    from merchant_stream
    window
        merchant_1d as {{ trailing('merchant_entity', day_1) }},
        merchant_7d as {{ trailing('merchant_entity', day_7) }},
        merchant_30d as {{ trailing('merchant_entity', day_30) }},
        merchant_past as {{ all_past('merchant_entity') }}
),

person_stream as (
    select
        payment_key,
        person_entity,
        order_key,
        0 as known_fraud
    from keyed

    union all

    select
        cast(null as text) as payment_key,
        person_entity,
        order_key,
        1 as known_fraud
    from labels
),

person_labels as (
    select
        payment_key,
        {{ window_sum('known_fraud', 'person_past') }} as customer_known_frauds
    from person_stream
    window
        person_past as {{ all_past('person_entity') }}
),

card_stream as (
    select
        payment_key,
        card_key,
        order_key,
        0 as known_fraud
    from keyed

    union all

    select
        cast(null as text) as payment_key,
        card_key,
        order_key,
        1 as known_fraud
    from labels
),

card_labels as (
    select
        payment_key,
        {{ window_sum('known_fraud', 'card_past') }} as card_known_frauds
    from card_stream
    window
        card_past as {{ all_past('card_key') }}
),

final as (
    select
        -- who and when; not features
        windowed.payment_key,
        windowed.payment_id,
        windowed.source,
        windowed.merchant_id,
        windowed.customer_key,
        windowed.card_key,
        windowed.amount_minor,
        windowed.currency,
        windowed.order_key,
        windowed.paid_at,
        windowed.is_fraud,
        windowed.fraud_known_at,

        -- the payment itself
        windowed.value_minor as reporting_value_minor,
        windowed.anomaly_score,
        cast(extract(hour from windowed.paid_at at time zone 'UTC') as bigint) as hour_of_day,
        cast(extract(isodow from windowed.paid_at at time zone 'UTC') as bigint) as day_of_week,
        {{ flag("extract(isodow from windowed.paid_at at time zone 'UTC') >= 6") }} as is_weekend,
        {{ flag("extract(hour from windowed.paid_at at time zone 'UTC') <= 6") }} as is_night,
        {{ flag("windowed.device_type = 'terminal'") }} as is_at_terminal,

        -- customer: velocity and amounts, the payment included
        windowed.customer_payments_1h,
        windowed.customer_payments_1d,
        windowed.customer_payments_7d,
        windowed.customer_payments_30d,
        {{ ratio('windowed.person_sum_1d', 'windowed.customer_payments_1d') }} as customer_mean_value_1d,
        {{ ratio('windowed.person_sum_7d', 'windowed.customer_payments_7d') }} as customer_mean_value_7d,
        {{ ratio('windowed.person_sum_30d', 'windowed.customer_payments_30d') }} as customer_mean_value_30d,
        windowed.customer_failed_1d,
        windowed.customer_new_merchants_1d,

        -- customer: deviation of the amount from the past alone
        windowed.person_past_count as customer_past_payments,
        {{ ratio(
            'windowed.value_minor * windowed.person_past_count', 'windowed.person_past_sum'
        ) }} as value_to_customer_mean,
        {{ ratio(
            'windowed.value_minor * windowed.person_past_count_30d', 'windowed.person_past_sum_30d'
        ) }} as value_to_customer_mean_30d,
        {{ ratio('windowed.value_minor', 'windowed.person_past_max') }} as value_to_customer_max,
        windowed.customer_large_payments_14d,
        windowed.paid_second - windowed.previous_person_second as customer_seconds_since_previous,

        -- card
        windowed.card_payments_10m,
        windowed.card_payments_1h,
        windowed.card_payments_1d,
        windowed.card_failed_1d,
        windowed.paid_second - windowed.previous_card_second as card_seconds_since_previous,

        -- device and network
        {{ flag(
            'windowed.device_id is not null and windowed.device_meeting = 1 and windowed.person_past_count > 0'
        ) }} as is_new_device,
        windowed.device_payments_1h,
        windowed.device_payments_1d,
        windowed.device_new_cards_1d,
        windowed.device_failed_1d,
        windowed.network_payments_1h,
        windowed.network_new_cards_1h,

        -- place
        {{ flag(
            'windowed.ip_country is not null and windowed.country_meeting = 1 and windowed.person_past_count > 0'
        ) }} as is_new_country,
        {{ flag('windowed.ip_country <> windowed.previous_ip_country') }} as is_country_changed,
        {{ flag('windowed.ip_country <> windowed.issuer_country') }} as is_outside_issuer_country,
        {{ flag('windowed.ip_country <> windowed.customer_country') }} as is_outside_home_country,

        -- merchant: velocity, amounts, and fraud as far as it was known
        windowed.merchant_small_payments_10m,
        windowed.merchant_payments_1h,
        windowed.merchant_payments_1d,
        windowed.merchant_failed_1h,
        {{ ratio(
            'windowed.value_minor * windowed.merchant_past_count_30d', 'windowed.merchant_past_sum_30d'
        ) }} as value_to_merchant_mean_30d,
        windowed.merchant_matured_payments_1d,
        windowed.merchant_matured_payments_7d,
        windowed.merchant_matured_payments_30d,
        merchant_labels.merchant_known_frauds_1d,
        merchant_labels.merchant_known_frauds_7d,
        merchant_labels.merchant_known_frauds_30d,
        merchant_labels.merchant_known_frauds,
        coalesce({{ ratio(
            'merchant_labels.merchant_known_frauds_1d', 'windowed.merchant_matured_payments_1d'
        ) }}, 0) as merchant_fraud_risk_1d,
        coalesce({{ ratio(
            'merchant_labels.merchant_known_frauds_7d', 'windowed.merchant_matured_payments_7d'
        ) }}, 0) as merchant_fraud_risk_7d,
        coalesce({{ ratio(
            'merchant_labels.merchant_known_frauds_30d', 'windowed.merchant_matured_payments_30d'
        ) }}, 0) as merchant_fraud_risk_30d,

        -- customer and card: fraud as far as it was known
        person_labels.customer_known_frauds,
        card_labels.card_known_frauds
    from windowed
    inner join merchant_labels
        on windowed.payment_key = merchant_labels.payment_key
    inner join person_labels
        on windowed.payment_key = person_labels.payment_key
    inner join card_labels
        on windowed.payment_key = card_labels.payment_key
)

select * from final
