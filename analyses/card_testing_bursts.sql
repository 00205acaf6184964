-- From which devices do bursts of attempts come that mostly fail, as when stolen cards are tried out?
-- An attempt is in a burst when it is at least the 4th from its device within an hour, and at least half of these
-- failed. A device can have several bursts: they are told as one, from the first such attempt to the last.
with

payments as (
    select * from {{ ref('fct_payments') }}
),

devices as (
    select * from {{ ref('dim_device') }}
    where not is_unknown
),

hours as (
    select
        devices.device_id,
        payments.payment_key,
        payments.paid_at,
        count(*) over (
            partition by devices.device_id
            order by payments.paid_at
            range between interval '60 minutes' preceding and current row
        ) as attempt_count_1h,
        sum(case when payments.status = 'failed' then 1 else 0 end) over (
            partition by devices.device_id
            order by payments.paid_at
            range between interval '60 minutes' preceding and current row
        ) as failed_count_1h
    from payments
    inner join devices
        on payments.device_key = devices.device_key
),

bursts as (
    select
        device_id,
        min(paid_at) as burst_from,
        max(paid_at) as burst_until,
        max(attempt_count_1h) as most_attempts_1h,
        max(failed_count_1h) as most_failed_1h
    from hours
    where
        attempt_count_1h >= 4
        and 2 * failed_count_1h >= attempt_count_1h
    group by device_id
),

totals as (
    select
        devices.device_id,
        count(distinct payments.payment_method_key) as payment_method_count,
        count(distinct payments.merchant_key) as merchant_count,
        sum(case when payments.captured_amount_minor > 0 then 1 else 0 end) as captured_count,
        coalesce(sum(payments.reporting_captured_amount_minor), 0) as captured_usd_minor
    from payments
    inner join devices
        on payments.device_key = devices.device_key
    group by devices.device_id
),

final as (
    select
        bursts.device_id,
        bursts.burst_from,
        bursts.burst_until,
        bursts.most_attempts_1h,
        bursts.most_failed_1h,
        totals.payment_method_count,
        totals.merchant_count,
        totals.captured_count,
        totals.captured_usd_minor
    from bursts
    inner join totals
        on bursts.device_id = totals.device_id
)

select * from final
order by most_attempts_1h desc, device_id asc
