with

feedback as (
    select * from {{ ref('stg_documents__feedback') }}
    where not is_deleted
),

payments as (
    select * from {{ ref('int_payments_converted') }}
    where source = 'oltp'
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

answered as (
    select
        *,
        {{ surrogate_key(["'oltp'", 'merchant_id', 'charge_id']) }} as charge_key,
        {{ json_array_length('answers') }} as answer_count,
        {{ json_array_sum('answers', 'score') }} as answer_sum
    from feedback
),

facts as (
    select
        -- keys
        {{ surrogate_key(['answered.feedback_id']) }} as feedback_key,
        answered.feedback_id,
        {{ surrogate_key(['answered.merchant_id']) }} as merchant_key,
        answered.merchant_id,
        {{ customer_key_of('answered.merchant_id', 'answered.customer_id') }} as customer_key,
        payments.payment_key,
        answered.charge_id as payment_id,
        answered.charge_version,

        -- properties
        answered.kind,
        answered.topic,
        answered.sentiment,
        answered.language,

        -- scores
        answered.rating,
        answered.answer_count,
        cast(
            {{ divide_half_even('10 * answered.answer_sum', 'nullif(answered.answer_count, 0)') }} as integer
        ) as answer_mean_tenths,
        answered.message_count,

        -- times
        answered.submitted_at,
        {{ utc_date('answered.submitted_at') }} as submitted_on,
        cast({{ utc_date('answered.submitted_at') }} - payments.paid_on as integer) as days_from_payment,

        -- lineage
        answered._batch_id
    from answered
    left join payments
        on
            answered.charge_key = payments.payment_key
            and answered.charge_id is not null
),

final as (
    {{ with_versions('facts', 'facts.submitted_at', ['merchant', 'customer']) }}
)

select * from final
