with

payments as (
    select * from {{ ref('fct_payments') }}
),

fraud_decisions as (
    select * from {{ ref('fct_fraud_decisions') }}
),

clock as (
    select {{ utc_date(as_of()) }} as today
),

-- A payment counts on its day, a decision on the day it was taken. Fraud is what was captured and is labelled so.
-- Whether a decision was right is known when its outcome is.
events as (
    select
        paid_on as occurred_on,
        merchant_key,
        currency,
        1 as is_payment,
        case when captured_amount_minor > 0 then 1 else 0 end as is_captured,
        case when is_fraud and captured_amount_minor > 0 then 1 else 0 end as is_fraud,
        captured_amount_minor,
        0 as is_decision,
        0 as is_reviewed,
        0 as is_blocked,
        0 as is_judged,
        0 as is_false_positive,
        0 as is_missed_fraud,
        0 as decided_amount_minor
    from payments

    union all

    select
        decided_on as occurred_on,
        merchant_key,
        currency,
        0 as is_payment,
        0 as is_captured,
        0 as is_fraud,
        0 as captured_amount_minor,
        1 as is_decision,
        case when decision = 'review' then 1 else 0 end as is_reviewed,
        case when decision = 'block' then 1 else 0 end as is_blocked,
        case when is_right is not null then 1 else 0 end as is_judged,
        case when decision <> 'allow' and not is_right then 1 else 0 end as is_false_positive,
        case when decision = 'allow' and not is_right then 1 else 0 end as is_missed_fraud,
        amount_minor as decided_amount_minor
    from fraud_decisions
),

counted as (
    select
        occurred_on,
        merchant_key,
        currency,
        cast(sum(is_payment) as bigint) as payment_count,
        cast(sum(is_captured) as bigint) as captured_count,
        cast(sum(is_fraud) as bigint) as fraud_count,
        cast(sum(is_decision) as bigint) as decision_count,
        cast(sum(is_reviewed) as bigint) as reviewed_count,
        cast(sum(is_blocked) as bigint) as blocked_count,
        cast(sum(is_judged) as bigint) as judged_count,
        cast(sum(is_false_positive) as bigint) as false_positive_count,
        cast(sum(is_missed_fraud) as bigint) as missed_fraud_count,
        cast(sum(captured_amount_minor) as bigint) as captured_amount_minor,
        cast(sum(is_fraud * captured_amount_minor) as bigint) as fraud_amount_minor,
        cast(sum(is_reviewed * decided_amount_minor) as bigint) as reviewed_amount_minor,
        cast(sum(is_blocked * decided_amount_minor) as bigint) as blocked_amount_minor,
        cast(sum(is_false_positive * decided_amount_minor) as bigint) as false_positive_amount_minor,
        cast(sum(is_missed_fraud * decided_amount_minor) as bigint) as missed_fraud_amount_minor,
        occurred_on - cast('1970-01-01' as date) as day_number
    from events
    group by occurred_on, merchant_key, currency
),

-- The day and the 89 before it.
{%- set trailing_90_days -%}
    (partition by merchant_key, currency order by day_number range between 89 preceding and current row)
{%- endset %}
rolling as (
    select
        *,
        {{ window_sum('captured_count', trailing_90_days) }} as captured_count_90d,
        {{ window_sum('fraud_count', trailing_90_days) }} as fraud_count_90d,
        {{ window_sum('captured_amount_minor', trailing_90_days) }} as captured_amount_90d_minor,
        {{ window_sum('fraud_amount_minor', trailing_90_days) }} as fraud_amount_90d_minor
    from counted
),

final as (
    select
        -- keys
        {{ surrogate_key(['rolling.occurred_on', 'rolling.merchant_key', 'rolling.currency']) }} as fraud_daily_key,
        rolling.occurred_on,
        rolling.merchant_key,
        rolling.currency,

        -- flags
        rolling.occurred_on + {{ var('label_delay_days') | int }} <= clock.today as is_mature,

        -- counts
        rolling.payment_count,
        rolling.captured_count,
        rolling.fraud_count,
        rolling.decision_count,
        rolling.reviewed_count,
        rolling.blocked_count,
        rolling.judged_count,
        rolling.false_positive_count,
        rolling.missed_fraud_count,

        -- money
        rolling.captured_amount_minor,
        rolling.fraud_amount_minor,
        rolling.reviewed_amount_minor,
        rolling.blocked_amount_minor,
        rolling.false_positive_amount_minor,
        rolling.missed_fraud_amount_minor,

        -- 90 days
        rolling.captured_count_90d,
        rolling.fraud_count_90d,
        rolling.captured_amount_90d_minor,
        rolling.fraud_amount_90d_minor,

        -- rates
        {{ basis_points('rolling.reviewed_count', 'rolling.decision_count') }} as review_rate_basis_points,
        {{ basis_points('rolling.fraud_count_90d', 'rolling.captured_count_90d') }}
            as fraud_count_rate_90d_basis_points,
        {{ basis_points('rolling.fraud_amount_90d_minor', 'rolling.captured_amount_90d_minor') }}
            as fraud_value_rate_90d_basis_points
    from rolling
    cross join clock
)

select * from final
