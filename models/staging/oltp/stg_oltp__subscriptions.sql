with

source as (
    select * from {{ source('oltp', 'subscriptions') }}
),

latest as (
    {{ latest_versions('source') }}
),

final as (
    select
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
        _op = 'd' as is_deleted,

        -- times
        trial_end_at,
        canceled_at,
        ended_at,
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
