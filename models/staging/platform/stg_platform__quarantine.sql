with

source as (
    select * from {{ source('platform', 'quarantine') }}
),

-- Equal records of one batch are told apart by a number, so that each keeps its row.
numbered as (
    select
        *,
        row_number() over (
            partition by batch_id, source, entity, origin, rule, record
            order by quarantined_at
        ) as copy_number
    from source
),

final as (
    select
        {{ surrogate_key(['batch_id', 'source', 'entity', 'origin', 'rule', 'record', 'copy_number']) }}
            as quarantine_key,
        -- ids
        batch_id,

        -- properties
        source,
        entity,
        rule,
        reason,
        record,
        origin,
        sequence,

        -- times
        quarantined_at
    from numbered
)

select * from final
