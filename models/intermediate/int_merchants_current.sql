with

merchants as (
    select * from {{ ref('stg_oltp__merchants') }}
),

final as (
    select
        merchant_id,
        business_name,
        mcc,
        country,
        default_currency,
        status,
        fee_basis_points,
        fee_fixed_minor,
        created_at,
        updated_at
    from merchants
    where not is_deleted
)

select * from final
