with

source as (
    select * from {{ source('oltp', 'ledger_seals') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        seal_no,

        -- properties
        from_xid,
        to_xid,
        transaction_count,
        content_hash,
        previous_hash,
        seal_hash,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        sealed_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
