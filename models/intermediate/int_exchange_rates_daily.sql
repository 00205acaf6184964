with

rates as (
    select * from {{ ref('exchange_rates') }}
),

periods as (
    select
        currency,
        rate_to_usd,
        valid_from,
        lead(valid_from) over (partition by currency order by valid_from) as valid_before
    from rates
),

days as (
    select cast(spine.moment as date) as rate_day
    from generate_series(
        (select cast(min(valid_from) as timestamp) from rates),
        (select cast(max(valid_from) as timestamp) from rates),
        interval '1 day'
    ) as spine (moment)
),

final as (
    select
        periods.currency,
        days.rate_day,
        periods.rate_to_usd as rate_to_reporting
    from periods
    inner join days
        on
            periods.valid_from <= days.rate_day
            and (periods.valid_before > days.rate_day or periods.valid_before is null)
)

select * from final
