with

payment_intents as (
    select * from {{ ref('stg_oltp__payment_intents') }}
    where not is_deleted
),

payment_methods as (
    select * from {{ ref('stg_oltp__payment_methods') }}
    where not is_deleted
),

charges as (
    select * from {{ ref('int_charges_with_refunds_and_disputes') }}
),

-- An intent is tried in its currency until an attempt succeeds; an attempt that was voided or expired had been
-- authorized before.
attempts_by_intent as (
    select
        merchant_id,
        payment_intent_id,
        currency,
        min(created_at) as first_attempted_at,
        max(amount_minor) as attempted_amount_minor,
        count(*) as attempt_count,
        sum(
            case when failure_code in ('authorization_voided', 'authorization_expired') then 1 else 0 end
        ) as released_count,
        sum(captured_amount_minor) as captured_amount_minor,
        sum(refunded_amount_minor) as refunded_amount_minor,
        sum(dispute_count) as dispute_count,
        sum(disputed_amount_minor) as disputed_amount_minor
    from charges
    group by merchant_id, payment_intent_id, currency
),

-- The payment method of the last attempt; of two at one moment the one with the higher id.
latest_attempts as (
    select
        merchant_id,
        payment_intent_id,
        payment_method_type,
        row_number() over (
            partition by merchant_id, payment_intent_id order by created_at desc, charge_id desc
        ) as recency
    from charges
),

-- An intent that has not landed is inferred from its attempts, so that none of them is lost.
intents as (
    select
        merchant_id,
        payment_intent_id,
        payment_method_id,
        currency,
        capture_method,
        status,
        amount_minor,
        created_at,
        false as is_inferred
    from payment_intents

    union all

    select
        attempts_by_intent.merchant_id,
        attempts_by_intent.payment_intent_id,
        cast(null as text) as payment_method_id,
        attempts_by_intent.currency,
        cast(null as text) as capture_method,
        cast(null as text) as status,
        attempts_by_intent.attempted_amount_minor as amount_minor,
        attempts_by_intent.first_attempted_at as created_at,
        true as is_inferred
    from attempts_by_intent
    left join payment_intents
        on
            attempts_by_intent.merchant_id = payment_intents.merchant_id
            and attempts_by_intent.payment_intent_id = payment_intents.payment_intent_id
            and attempts_by_intent.currency = payment_intents.currency
    where payment_intents.payment_intent_id is null
),

-- Money is on hold, or was, where capture is manual alone; elsewhere a payment is authorized and captured at once.
final as (
    select
        intents.merchant_id,
        intents.payment_intent_id,
        coalesce(latest_attempts.payment_method_type, payment_methods.type, 'unknown') as payment_method_type,
        intents.currency,
        intents.status,
        intents.created_at,
        intents.is_inferred,
        intents.amount_minor,
        coalesce(attempts_by_intent.attempt_count, 0) as attempt_count,
        coalesce(attempts_by_intent.captured_amount_minor, 0) > 0
        or coalesce(intents.status = 'requires_capture', false)
        or (
            coalesce(intents.capture_method = 'manual', false)
            and coalesce(attempts_by_intent.released_count, 0) > 0
        ) as is_authorized,
        coalesce(attempts_by_intent.captured_amount_minor, 0) as captured_amount_minor,
        coalesce(attempts_by_intent.refunded_amount_minor, 0) as refunded_amount_minor,
        coalesce(attempts_by_intent.dispute_count, 0) as dispute_count,
        coalesce(attempts_by_intent.disputed_amount_minor, 0) as disputed_amount_minor
    from intents
    left join payment_methods
        on
            intents.merchant_id = payment_methods.merchant_id
            and intents.payment_method_id = payment_methods.payment_method_id
    left join attempts_by_intent
        on
            intents.merchant_id = attempts_by_intent.merchant_id
            and intents.payment_intent_id = attempts_by_intent.payment_intent_id
            and intents.currency = attempts_by_intent.currency
    left join latest_attempts
        on
            intents.merchant_id = latest_attempts.merchant_id
            and intents.payment_intent_id = latest_attempts.payment_intent_id
            and latest_attempts.recency = 1
)

select * from final
