-- Nothing stands in quarantine that a batch did not count as refused. It may be less: a record refused before is
-- counted again and not written again. Returns the batches and entities with more records in quarantine than refused.
with

batches as (
    select * from {{ ref('stg_platform__batches') }}
),

quarantined as (
    select
        batch_id,
        entity,
        count(*) as row_count
    from {{ ref('stg_platform__quarantine') }}
    group by batch_id, entity
),

final as (
    select
        quarantined.batch_id,
        quarantined.entity,
        quarantined.row_count,
        batches.quarantined_count
    from quarantined
    left join batches
        on
            quarantined.batch_id = batches.batch_id
            and quarantined.entity = batches.entity
    where quarantined.row_count > coalesce(batches.quarantined_count, 0)
)

select * from final
