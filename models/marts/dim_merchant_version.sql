with

merchants as (
    select * from {{ ref('dim_merchant') }}
),

history as (
    select * from {{ ref('hist_merchants') }}
),

merchant_categories as (
    select * from {{ ref('dim_merchant_category') }}
),

versions as (
    {{ versions_over_all_time('history', 'merchant_key') }}
),

recorded as (
    select
        versions.merchant_version_key,
        versions.merchant_key,
        versions.merchant_id,
        versions.business_name,
        coalesce(versions.mcc, '0000') as mcc,
        merchant_categories.category_name,
        merchant_categories.vertical,
        coalesce(versions.country, 'ZZ') as country,
        coalesce(versions.default_currency, 'XXX') as default_currency,
        versions.status,
        versions.fee_basis_points,
        versions.fee_fixed_minor,
        false as is_inferred,
        versions.place as version_number,
        versions.held_from as valid_from,
        versions.held_to as valid_to,
        versions.is_last as is_current,
        versions.deleted_at
    from versions
    left join merchant_categories
        on coalesce(versions.mcc, '0000') = merchant_categories.mcc
),

-- A merchant without a history, as the unknown and the inferred are, has one version: as it stands now.
unrecorded as (
    select
        merchants.merchant_key as merchant_version_key,
        merchants.merchant_key,
        merchants.merchant_id,
        merchants.business_name,
        merchants.mcc,
        merchants.category_name,
        merchants.vertical,
        merchants.country,
        merchants.default_currency,
        merchants.status,
        merchants.fee_basis_points,
        merchants.fee_fixed_minor,
        merchants.is_inferred,
        cast(1 as bigint) as version_number,
        {{ beginning_of_time() }} as valid_from,
        {{ end_of_time() }} as valid_to,
        true as is_current,
        cast(null as timestamptz) as deleted_at
    from merchants
    left join history
        on merchants.merchant_key = history.merchant_key
    where history.merchant_key is null
),

final as (
    select * from recorded
    union all
    select * from unrecorded
)

select * from final
