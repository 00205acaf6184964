with

days as (
    select * from {{ ref('agg_revenue_daily') }}
),

final as (
    {{ revenue_by('week', 'days') }}
)

select * from final
