-- dim_time_of_day has every minute of the day, and each has its part of the day.
-- Returns the parts of the day that have another number of minutes than theirs.
with

minutes as (
    select * from {{ ref('dim_time_of_day') }}
),

counted as (
    select
        part_of_day,
        count(*) as minute_count,
        min(minute_of_day) as first_minute,
        max(minute_of_day) as last_minute,
        sum(case when is_business_hours then 1 else 0 end) as business_minute_count
    from minutes
    group by part_of_day
),

expected as (
    select
        'night' as part_of_day,
        0 as first_minute,
        0 as business_minute_count
    union all
    select
        'morning' as part_of_day,
        360 as first_minute,
        180 as business_minute_count
    union all
    select
        'afternoon' as part_of_day,
        720 as first_minute,
        300 as business_minute_count
    union all
    select
        'evening' as part_of_day,
        1080 as first_minute,
        0 as business_minute_count
),

final as (
    select
        expected.part_of_day,
        counted.minute_count,
        counted.first_minute,
        counted.last_minute,
        counted.business_minute_count
    from expected
    left join counted
        on expected.part_of_day = counted.part_of_day
    where
        counted.part_of_day is null
        or counted.minute_count <> 360
        or counted.first_minute <> expected.first_minute
        or counted.last_minute <> expected.first_minute + 359
        or counted.business_minute_count <> expected.business_minute_count
)

select * from final
