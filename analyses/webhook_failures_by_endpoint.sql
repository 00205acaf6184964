-- Which endpoints of merchants do not take their events, and how long do the others wait for them?
-- A delivery that was given up is lost; the 95th percentile (nearest rank) is of those that arrived, from the event
-- to the answer.
with

deliveries as (
    select * from {{ ref('fct_webhook_deliveries') }}
),

totals as (
    select
        merchant_id,
        endpoint,
        count(*) as delivery_count,
        sum(case when state = 'delivered' then 1 else 0 end) as delivered_count,
        sum(case when state = 'delivered' and attempt_count = 1 then 1 else 0 end) as first_try_count,
        sum(case when state = 'failed' then 1 else 0 end) as failed_count,
        sum(case when state = 'pending' then 1 else 0 end) as pending_count,
        sum(attempt_count) as attempt_count,
        percentile_disc(0.95) within group (
            order by case when state = 'delivered' then seconds_to_delivery end
        ) as p95_seconds_to_delivery
    from deliveries
    group by merchant_id, endpoint
),

final as (
    select
        totals.*,
        {{ basis_points('failed_count', 'delivery_count') }} as failed_basis_points
    from totals
)

select * from final
order by failed_count desc, attempt_count desc, merchant_id asc, endpoint asc
