with

source as (
    select * from {{ source('oltp', 'invoice_lines') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        invoice_line_id,
        invoice_id,
        price_id,
        subscription_item_id,

        -- properties
        quantity,
        currency,

        -- amounts
        amount_minor,

        -- flags
        is_proration,
        _op = 'd' as is_deleted,

        -- times
        period_start_at,
        period_end_at,
        created_at,

        -- lineage
        _position,
        _source_at,
        _batch_id,
        _sequence
    from latest
)

select * from final
