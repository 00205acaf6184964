-- Every record that a batch refused stands in quarantine, and nothing else does.
-- Returns the batches and entities where the two numbers differ.
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
        batches.batch_id,
        batches.entity,
        batches.quarantined_count,
        coalesce(quarantined.row_count, 0) as row_count
    from batches
    left join quarantined
        on
            batches.batch_id = quarantined.batch_id
            and batches.entity = quarantined.entity
    where batches.quarantined_count <> coalesce(quarantined.row_count, 0)
)

select * from final
