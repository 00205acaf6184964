-- From which source do records come that we have to refuse?
-- Records of all landings, each counted as often as it was read; a record that was mended later is not counted back.
with

landings as (
    select * from {{ ref('agg_compliance_daily') }}
),

totals as (
    select
        source,
        entity,
        sum(batch_count) as batch_count,
        sum(read_count) as read_count,
        sum(accepted_count) as accepted_count,
        sum(unchanged_count) as unchanged_count,
        sum(quarantined_count) as quarantined_count,
        max(landed_on) as last_landed_on
    from landings
    group by source, entity
),

final as (
    select
        totals.*,
        {{ basis_points('quarantined_count', 'read_count') }} as quarantined_basis_points
    from totals
)

select * from final
order by quarantined_count desc, source asc, entity asc
