-- Who looks at or changes merchants' data outside of business hours, and what did they take with them?
-- People only: services work day and night. Business hours are 9 to 17 UTC on weekdays, wherever the person is.
with

events as (
    select * from {{ ref('fct_access_audit') }}
    where actor_type <> 'service'
),

dates as (
    select * from {{ ref('dim_date') }}
),

times as (
    select * from {{ ref('dim_time_of_day') }}
),

timed as (
    select
        events.*,
        dates.is_weekend or not times.is_business_hours as is_out_of_hours
    from events
    inner join dates
        on events.occurred_on = dates.date_day
    inner join times
        on {{ utc_minute('events.occurred_at') }} = times.minute_of_day
),

totals as (
    select
        actor_type,
        actor_id,
        count(*) as event_count,
        sum(case when is_out_of_hours then 1 else 0 end) as out_of_hours_count,
        sum(case when is_out_of_hours and action = 'export' then 1 else 0 end) as out_of_hours_export_count,
        sum(case when is_out_of_hours and outcome = 'denied' then 1 else 0 end) as out_of_hours_denied_count,
        count(distinct case when is_out_of_hours then merchant_id end) as out_of_hours_merchant_count,
        max(case when is_out_of_hours then occurred_at end) as last_out_of_hours_at
    from timed
    group by actor_type, actor_id
),

final as (
    select
        totals.*,
        {{ basis_points('out_of_hours_count', 'event_count') }} as out_of_hours_basis_points
    from totals
    where totals.out_of_hours_count > 0
)

select * from final
order by out_of_hours_count desc, actor_type asc, actor_id asc
