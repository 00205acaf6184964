with

customers as (
    select * from {{ ref('dim_customer') }}
),

history as (
    select * from {{ ref('hist_customers') }}
),

versions as (
    {{ versions_over_all_time('history', 'customer_key') }}
),

recorded as (
    select
        customer_version_key,
        customer_key,
        customer_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        merchant_token,
        coalesce(country, 'ZZ') as country,
        city,
        email_domain,
        has_marketing_consent,
        consent_at,
        retention_until,
        false as is_inferred,
        place as version_number,
        held_from as valid_from,
        held_to as valid_to,
        is_last as is_current,
        deleted_at
    from versions
),

-- A customer without a history, as the unknown and the inferred are, has one version: as it stands now.
unrecorded as (
    select
        customers.customer_key as customer_version_key,
        customers.customer_key,
        customers.customer_id,
        customers.merchant_key,
        customers.merchant_id,
        customers.merchant_token,
        customers.country,
        customers.city,
        customers.email_domain,
        customers.has_marketing_consent,
        customers.consent_at,
        customers.retention_until,
        customers.is_inferred,
        cast(1 as bigint) as version_number,
        {{ beginning_of_time() }} as valid_from,
        {{ end_of_time() }} as valid_to,
        true as is_current,
        cast(null as timestamptz) as deleted_at
    from customers
    left join history
        on customers.customer_key = history.customer_key
    where history.customer_key is null
),

final as (
    select * from recorded
    union all
    select * from unrecorded
)

select * from final
