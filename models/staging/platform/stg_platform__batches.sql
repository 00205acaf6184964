with

source as (
    select * from {{ source('platform', 'batches') }}
),

final as (
    select
        -- ids
        batch_id,
        entity,

        -- properties
        sequence,
        source,
        kind,
        origin,
        position,
        code_version,
        schema_version,
        read_count,
        accepted_count,
        unchanged_count,
        quarantined_count,
        deleted_count,

        -- times
        source_at,
        landed_at
    from source
)

select * from final
