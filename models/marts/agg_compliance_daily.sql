with

batches as (
    select * from {{ ref('stg_platform__batches') }}
),

quarantined as (
    select * from {{ ref('stg_platform__quarantine') }}
),

landed as (
    select
        {{ utc_date('landed_at') }} as landed_on,
        source,
        entity,
        count(*) as batch_count,
        cast(sum(read_count) as bigint) as read_count,
        cast(sum(accepted_count) as bigint) as accepted_count,
        cast(sum(unchanged_count) as bigint) as unchanged_count,
        cast(sum(quarantined_count) as bigint) as quarantined_count,
        cast(sum(deleted_count) as bigint) as deleted_count
    from batches
    group by {{ utc_date('landed_at') }}, source, entity
),

refused as (
    select
        {{ utc_date('batches.landed_at') }} as landed_on,
        quarantined.source,
        quarantined.entity,
        count(distinct quarantined.rule) as broken_rule_count
    from quarantined
    inner join batches
        on
            quarantined.batch_id = batches.batch_id
            and quarantined.entity = batches.entity
    group by {{ utc_date('batches.landed_at') }}, quarantined.source, quarantined.entity
),

final as (
    select
        {{ surrogate_key(['landed.landed_on', 'landed.source', 'landed.entity']) }} as compliance_daily_key,
        landed.*,
        coalesce(refused.broken_rule_count, 0) as broken_rule_count
    from landed
    left join refused
        on
            landed.landed_on = refused.landed_on
            and landed.source = refused.source
            and landed.entity = refused.entity
)

select * from final
