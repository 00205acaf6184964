with

customers as (
    select * from {{ ref('dim_customer') }}
    where
        customer_id is not null
        and not is_deleted
),

payments as (
    select * from {{ ref('fct_payments') }}
),

refunds as (
    select * from {{ ref('fct_refunds') }}
    where status not in ('failed', 'canceled')
),

disputes as (
    select * from {{ ref('fct_disputes') }}
    where not is_inquiry
),

sessions as (
    select * from {{ ref('fct_sessions') }}
),

feedback as (
    select * from {{ ref('fct_feedback') }}
),

fraud_decisions as (
    select * from {{ ref('fct_fraud_decisions') }}
),

profiles as (
    select * from {{ ref('stg_documents__customer_profiles') }}
    where not is_deleted
),

clock as (
    select {{ utc_date(as_of()) }} as today
),

-- Money of several currencies adds up in the reporting currency alone, each payment at the book rate of its day; those
-- without a rate are counted, not guessed.
payments_by_customer as (
    select
        customer_key,
        count(*) as payment_count,
        sum(case when status in ('failed', 'pending') then 0 else 1 end) as paid_count,
        sum(case when status = 'failed' then 1 else 0 end) as failed_count,
        sum(case when source = 'oltp' and status not in ('failed', 'pending') then 1 else 0 end) as paid_charge_count,
        count(distinct case when captured_amount_minor > 0 then currency end) as currency_count,
        sum(
            case when captured_amount_minor > 0 and rate_to_reporting is null then 1 else 0 end
        ) as unconverted_count,
        sum(reporting_captured_amount_minor) as reporting_captured_amount_minor,
        sum(
            case when source = 'files' and refunded_amount_minor > 0 then reporting_amount_minor else 0 end
        ) as reporting_refunded_in_files_minor,
        min(case when status not in ('failed', 'pending') then paid_at end) as first_paid_at,
        max(case when status not in ('failed', 'pending') then paid_at end) as last_paid_at
    from payments
    group by customer_key
),

refunds_by_customer as (
    select
        customer_key,
        count(*) as refund_count,
        sum(reporting_amount_minor) as reporting_refunded_amount_minor
    from refunds
    group by customer_key
),

disputes_by_customer as (
    select
        customer_key,
        count(*) as dispute_count,
        sum(case when status = 'won' then 0 else reporting_amount_minor end) as reporting_disputed_amount_minor,
        sum(case when status = 'lost' then reporting_amount_minor else 0 end) as reporting_lost_amount_minor
    from disputes
    group by customer_key
),

sessions_by_customer as (
    select
        customer_key,
        count(*) as session_count,
        sum(case when has_converted then 1 else 0 end) as converted_session_count,
        max(started_at) as last_session_at
    from sessions
    group by customer_key
),

feedback_by_customer as (
    select
        customer_key,
        count(*) as feedback_count,
        sum(case when kind = 'ticket' then 1 else 0 end) as ticket_count,
        count(rating) as rating_count,
        sum(rating) as rating_sum,
        max(submitted_at) as last_feedback_at
    from feedback
    group by customer_key
),

-- What was said last; of two at one moment the one with the higher id.
latest_feedback as (
    select
        customer_key,
        sentiment,
        row_number() over (partition by customer_key order by submitted_at desc, feedback_id desc) as recency
    from feedback
),

decisions_by_customer as (
    select
        customer_key,
        sum(case when decision = 'block' then 1 else 0 end) as blocked_count,
        sum(case when decision = 'review' then 1 else 0 end) as reviewed_count
    from fraud_decisions
    group by customer_key
),

gathered as (
    select
        customers.customer_key,
        customers.customer_id,
        customers.merchant_key,
        customers.merchant_id,
        customers.country,
        coalesce(payments_by_customer.payment_count, 0) as payment_count,
        coalesce(payments_by_customer.paid_count, 0) as paid_count,
        coalesce(payments_by_customer.failed_count, 0) as failed_count,
        coalesce(payments_by_customer.paid_charge_count, 0) as paid_charge_count,
        coalesce(payments_by_customer.currency_count, 0) as currency_count,
        coalesce(payments_by_customer.unconverted_count, 0) as unconverted_count,
        coalesce(payments_by_customer.reporting_captured_amount_minor, 0) as reporting_captured_amount_minor,
        payments_by_customer.first_paid_at,
        payments_by_customer.last_paid_at,
        clock.today - {{ utc_date('payments_by_customer.first_paid_at') }} as days_since_first_payment,
        clock.today - {{ utc_date('payments_by_customer.last_paid_at') }} as days_since_last_payment,
        case
            when payments_by_customer.first_paid_at is not null
                then 1 + greatest(
                    {{ months_between(utc_date('payments_by_customer.first_paid_at'), 'clock.today') }}, 0
                )
        end as lifetime_months,
        coalesce(refunds_by_customer.refund_count, 0) as refund_count,
        coalesce(refunds_by_customer.reporting_refunded_amount_minor, 0) as reporting_refunded_amount_minor,
        coalesce(disputes_by_customer.dispute_count, 0) as dispute_count,
        coalesce(disputes_by_customer.reporting_disputed_amount_minor, 0) as reporting_disputed_amount_minor,
        coalesce(payments_by_customer.reporting_captured_amount_minor, 0)
        - coalesce(payments_by_customer.reporting_refunded_in_files_minor, 0)
        - coalesce(refunds_by_customer.reporting_refunded_amount_minor, 0)
        - coalesce(disputes_by_customer.reporting_lost_amount_minor, 0) as reporting_lifetime_value_minor,
        coalesce(sessions_by_customer.session_count, 0) as session_count,
        coalesce(sessions_by_customer.converted_session_count, 0) as converted_session_count,
        sessions_by_customer.last_session_at,
        coalesce(feedback_by_customer.feedback_count, 0) as feedback_count,
        coalesce(feedback_by_customer.ticket_count, 0) as ticket_count,
        coalesce(feedback_by_customer.rating_count, 0) as rating_count,
        feedback_by_customer.rating_sum,
        feedback_by_customer.last_feedback_at,
        latest_feedback.sentiment as latest_sentiment,
        coalesce(decisions_by_customer.blocked_count, 0) as blocked_count,
        coalesce(decisions_by_customer.reviewed_count, 0) as reviewed_count,
        profiles.segment as profile_segment,
        profiles.payment_count as profile_payment_count,
        profiles.updated_at as profile_updated_at
    from customers
    cross join clock
    left join payments_by_customer
        on customers.customer_key = payments_by_customer.customer_key
    left join refunds_by_customer
        on customers.customer_key = refunds_by_customer.customer_key
    left join disputes_by_customer
        on customers.customer_key = disputes_by_customer.customer_key
    left join sessions_by_customer
        on customers.customer_key = sessions_by_customer.customer_key
    left join feedback_by_customer
        on customers.customer_key = feedback_by_customer.customer_key
    left join latest_feedback
        on
            customers.customer_key = latest_feedback.customer_key
            and latest_feedback.recency = 1
    left join decisions_by_customer
        on customers.customer_key = decisions_by_customer.customer_key
    left join profiles
        on
            customers.merchant_id = profiles.merchant_id
            and customers.customer_id = profiles.customer_id
),

-- Customers who have paid are ranked among those of their merchant; those who never did have no score.
scored as (
    select
        *,
        case
            when paid_count > 0 then {{ quintile('days_since_last_payment desc', 'merchant_key, paid_count > 0') }}
        end as recency_score,
        case
            when paid_count > 0 then {{ quintile('paid_count', 'merchant_key, paid_count > 0') }}
        end as frequency_score,
        case
            when paid_count > 0
                then {{ quintile('reporting_captured_amount_minor', 'merchant_key, paid_count > 0') }}
        end as monetary_score
    from gathered
),

final as (
    select
        -- keys
        customer_key,
        customer_id,
        merchant_key,
        merchant_id,
        country,

        -- labels
        case
            when days_since_last_payment is null then 'never'
            when days_since_last_payment <= 30 then 'recent'
            when days_since_last_payment <= 90 then 'cooling'
            else 'gone'
        end as recency,
        case
            when paid_count = 0 then 'never'
            when paid_count = 1 then 'once'
            when paid_count < 5 then 'sometimes'
            else 'often'
        end as frequency,
        case
            when reporting_captured_amount_minor = 0 then 'nothing'
            when reporting_captured_amount_minor < 10000 then 'small'
            when reporting_captured_amount_minor < 100000 then 'medium'
            else 'large'
        end as monetary,
        case
            when days_since_first_payment is null or days_since_first_payment <= 30 then 'new'
            when days_since_last_payment > 90 then 'lapsed'
            when days_since_last_payment > 30 then 'at_risk'
            when paid_count >= 5 then 'loyal'
            else 'active'
        end as segment,

        -- scores
        recency_score,
        frequency_score,
        monetary_score,
        case
            when paid_count = 0 then 'none'
            when recency_score >= 4 and frequency_score >= 4 and monetary_score >= 4 then 'champion'
            when recency_score >= 3 and frequency_score >= 4 then 'loyal'
            when recency_score >= 4 then 'promising'
            when recency_score = 3 then 'regular'
            when frequency_score >= 4 or monetary_score >= 4 then 'slipping'
            else 'dormant'
        end as rfm_segment,

        -- profile of the document store
        profile_segment,
        cast(profile_payment_count as bigint) as profile_payment_count,
        profile_updated_at,
        profile_payment_count <> paid_charge_count as is_profile_different,

        -- payments
        cast(payment_count as bigint) as payment_count,
        cast(paid_count as bigint) as paid_count,
        cast(failed_count as bigint) as failed_count,
        cast(currency_count as bigint) as currency_count,
        cast(unconverted_count as bigint) as unconverted_count,
        first_paid_at,
        last_paid_at,
        cast(days_since_last_payment as integer) as days_since_last_payment,
        cast(reporting_captured_amount_minor as bigint) as reporting_captured_amount_minor,

        -- lifetime value
        lifetime_months,
        cast(reporting_lifetime_value_minor as bigint) as reporting_lifetime_value_minor,
        {{ divide_half_even('reporting_lifetime_value_minor', 'lifetime_months') }}
            as reporting_lifetime_value_per_month_minor,

        -- what went wrong
        cast(refund_count as bigint) as refund_count,
        cast(reporting_refunded_amount_minor as bigint) as reporting_refunded_amount_minor,
        cast(dispute_count as bigint) as dispute_count,
        cast(reporting_disputed_amount_minor as bigint) as reporting_disputed_amount_minor,
        cast(blocked_count as bigint) as blocked_count,
        cast(reviewed_count as bigint) as reviewed_count,

        -- behaviour
        cast(session_count as bigint) as session_count,
        cast(converted_session_count as bigint) as converted_session_count,
        {{ share_of('converted_session_count', 'session_count') }} as conversion_rate,
        last_session_at,

        -- voice
        cast(feedback_count as bigint) as feedback_count,
        cast(ticket_count as bigint) as ticket_count,
        cast({{ divide_half_even('10 * rating_sum', 'nullif(rating_count, 0)') }} as integer) as rating_mean_tenths,
        latest_sentiment,
        last_feedback_at
    from scored
)

select * from final
