with

days as (
    select * from {{ ref('agg_revenue_daily') }}
),

final as (
    {{ revenue_by('month', 'days') }}
)

select * from final
