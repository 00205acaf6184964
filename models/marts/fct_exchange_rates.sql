with

rates as (
    select * from {{ ref('int_exchange_rates_daily') }}
),

compared as (
    select
        *,
        lag(rate_to_reporting) over (partition by currency order by rate_day) as rate_before
    from rates
),

final as (
    select
        -- keys
        {{ surrogate_key(['currency', 'rate_day']) }} as exchange_rate_key,

        -- properties
        currency,

        -- times
        rate_day as rate_on,

        -- rates
        rate_to_reporting,
        {{ divide_half_even(
            'cast((rate_to_reporting - rate_before) * 1000000000000 as ' ~ type_wide_integer() ~ ')',
            'cast(rate_before * 100000000 as ' ~ type_wide_integer() ~ ')'
        ) }} as change_basis_points
    from compared
)

select * from final
