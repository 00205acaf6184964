with

payment_intents as (
    select * from {{ ref('int_payment_intents_with_attempts') }}
),

stages as (
    select
        {{ utc_date('created_at') }} as created_on,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        currency,
        payment_method_type,
        amount_minor,
        captured_amount_minor,
        refunded_amount_minor,
        disputed_amount_minor,
        attempt_count,
        case when attempt_count > 0 then 1 else 0 end as is_attempted,
        case when is_authorized then 1 else 0 end as is_authorized,
        case when captured_amount_minor > 0 then 1 else 0 end as is_captured,
        case when refunded_amount_minor > 0 then 1 else 0 end as is_refunded,
        case when dispute_count > 0 then 1 else 0 end as is_disputed
    from payment_intents
),

counted as (
    select
        created_on,
        merchant_key,
        currency,
        payment_method_type,
        count(*) as intent_count,
        sum(is_attempted) as attempted_count,
        sum(is_authorized) as authorized_count,
        sum(is_captured) as captured_count,
        sum(is_refunded) as refunded_count,
        sum(is_disputed) as disputed_count,
        sum(attempt_count) as attempt_count,
        sum(amount_minor) as amount_minor,
        sum(is_attempted * amount_minor) as attempted_amount_minor,
        sum(is_authorized * amount_minor) as authorized_amount_minor,
        sum(captured_amount_minor) as captured_amount_minor,
        sum(refunded_amount_minor) as refunded_amount_minor,
        sum(disputed_amount_minor) as disputed_amount_minor
    from stages
    group by created_on, merchant_key, currency, payment_method_type
),

final as (
    select
        -- keys
        {{ surrogate_key(['created_on', 'merchant_key', 'currency', 'payment_method_type']) }}
            as authorization_funnel_key,
        created_on,
        merchant_key,
        currency,
        payment_method_type,

        -- counts
        cast(intent_count as bigint) as intent_count,
        cast(attempted_count as bigint) as attempted_count,
        cast(authorized_count as bigint) as authorized_count,
        cast(captured_count as bigint) as captured_count,
        cast(refunded_count as bigint) as refunded_count,
        cast(disputed_count as bigint) as disputed_count,
        cast(attempt_count as bigint) as attempt_count,

        -- rates
        {{ basis_points('authorized_count', 'attempted_count') }} as authorization_rate_basis_points,
        {{ basis_points('captured_count', 'intent_count') }} as capture_rate_basis_points,

        -- money
        cast(amount_minor as bigint) as amount_minor,
        cast(attempted_amount_minor as bigint) as attempted_amount_minor,
        cast(authorized_amount_minor as bigint) as authorized_amount_minor,
        cast(captured_amount_minor as bigint) as captured_amount_minor,
        cast(refunded_amount_minor as bigint) as refunded_amount_minor,
        cast(disputed_amount_minor as bigint) as disputed_amount_minor
    from counted
)

select * from final
