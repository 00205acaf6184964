with

source as (
    select * from {{ source('oltp', 'transfers') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        transfer_id,
        destination_merchant_id,

        -- properties
        currency,
        version,

        -- amounts
        amount_minor,
        amount_reversed_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        created_at,
        updated_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
