with

spine as (
    select cast(minutes.minute_of_day as integer) as minute_of_day
    from generate_series(0, 1439) as minutes (minute_of_day)
),

clock as (
    select
        minute_of_day,
        cast({{ integer_quotient('minute_of_day', '60') }} as integer) as hour_of_day,
        minute_of_day % 60 as minute_of_hour
    from spine
),

final as (
    select
        minute_of_day,
        hour_of_day,
        minute_of_hour,
        lpad(cast(hour_of_day as text), 2, '0') || ':' || lpad(cast(minute_of_hour as text), 2, '0') as time_label,
        case
            when hour_of_day < 6 then 'night'
            when hour_of_day < 12 then 'morning'
            when hour_of_day < 18 then 'afternoon'
            else 'evening'
        end as part_of_day,
        hour_of_day between 9 and 16 as is_business_hours
    from clock
)

select * from final
