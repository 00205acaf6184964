with

states as (
    select * from {{ ref('int_subscription_states') }}
),

bounds as (
    select
        {{ as_of() }} as as_of_at,
        date_trunc('month', {{ as_of() }} at time zone 'UTC') as last_month,
        coalesce(
            date_trunc('month', min(valid_from) at time zone 'UTC'),
            date_trunc('month', {{ as_of() }} at time zone 'UTC')
        ) as first_month
    from states
),

-- A month is measured in its last microsecond, the running one now.
final as (
    select
        cast(calendar.moment as date) as month_start_on,
        least(
            (calendar.moment + interval '1 month') at time zone 'UTC' - interval '1 microsecond', bounds.as_of_at
        ) as measured_at
    from bounds
    cross join lateral generate_series(bounds.first_month, bounds.last_month, interval '1 month') as calendar (moment)
)

select * from final
