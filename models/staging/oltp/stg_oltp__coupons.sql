with

source as (
    select * from {{ source('oltp', 'coupons') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
        -- ids
        merchant_id,
        coupon_id,

        -- properties
        percent_off_basis_points,
        currency,
        duration,
        duration_in_months,
        version,

        -- amounts
        amount_off_minor,

        -- flags
        is_valid,
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
