with

source as (
    select * from {{ source('oltp', 'payouts') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        payout_id,

        -- properties
        currency,
        status,
        failure_code,
        version,

        -- amounts
        amount_minor,

        -- flags
        is_automatic,
        _op = 'd' as is_deleted,

        -- times
        arrival_date,
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
