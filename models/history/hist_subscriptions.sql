with

source as (
    select * from {{ source('oltp', 'subscriptions') }}
),

versions as (
    {{ versions_from_log('source') }}
),

final as (
    select
        -- keys
        {{ surrogate_key(['merchant_id', 'subscription_id', '_position']) }} as subscription_version_key,

        -- ids
        merchant_id,
        subscription_id,
        customer_id,
        payment_method_id,

        -- properties
        currency,
        status,
        version,

        -- flags
        is_canceling_at_period_end,

        -- times
        trial_end_at,
        canceled_at,
        ended_at,
        created_at,
        updated_at,

        {{ version_columns() }}
    from versions
)

select * from final
