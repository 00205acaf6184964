-- Of every record that a batch read it is known what became of it: read = accepted + unchanged + quarantined.
-- Returns the batches and entities where the counts do not add up.
with

batches as (
    select * from {{ ref('stg_platform__batches') }}
),

final as (
    select
        batch_id,
        source,
        entity,
        read_count,
        accepted_count,
        unchanged_count,
        quarantined_count
    from batches
    where read_count <> accepted_count + unchanged_count + quarantined_count
)

select * from final
