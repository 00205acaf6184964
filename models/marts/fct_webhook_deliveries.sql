with

webhook_deliveries as (
    select * from {{ ref('stg_documents__webhook_deliveries') }}
    where not is_deleted
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

attempted as (
    select
        *,
        cast({{ json_array_field('attempts', 0, 'attempted_at') }} as timestamptz) as first_attempted_at,
        cast({{ json_array_field('attempts', -1, 'attempted_at') }} as timestamptz) as last_attempted_at,
        cast({{ json_array_field('attempts', -1, 'status_code') }} as integer) as last_status_code
    from webhook_deliveries
),

facts as (
    select
        -- keys
        {{ surrogate_key(['delivery_id']) }} as webhook_delivery_key,
        delivery_id,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        event_id,
        endpoint,

        -- properties
        event_type,
        state,
        attempt_count,
        last_status_code,

        -- times
        created_at,
        {{ utc_date('created_at') }} as created_on,
        first_attempted_at,
        last_attempted_at,
        next_attempt_at,
        case
            when state = 'delivered' then {{ seconds_between('created_at', 'last_attempted_at') }}
        end as seconds_to_delivery,

        -- lineage
        _batch_id
    from attempted
),

final as (
    {{ with_versions('facts', 'facts.created_at', ['merchant']) }}
)

select * from final
