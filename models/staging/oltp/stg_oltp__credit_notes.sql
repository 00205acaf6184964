with

source as (
    select * from {{ source('oltp', 'credit_notes') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        credit_note_id,
        invoice_id,
        refund_id,

        -- properties
        currency,
        reason,

        -- amounts
        amount_minor,

        -- flags
        _op = 'd' as is_deleted,

        -- times
        created_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
