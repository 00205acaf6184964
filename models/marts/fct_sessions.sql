with

sessions as (
    select * from {{ ref('stg_documents__sessions') }}
    where not is_deleted
),

click_events as (
    select * from {{ ref('stg_documents__click_events') }}
    where not is_deleted
),

charges as (
    select * from {{ ref('int_charges_with_refunds_and_disputes') }}
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

-- Steps of the funnel by number, so that the deepest is the largest; a page is what a visitor looks at, not what goes
-- into the cart.
events_by_session as (
    select
        session_id,
        count(*) as event_count,
        sum(case when event_type in ('page_view', 'product_view', 'checkout_started') then 1 else 0 end) as page_count,
        max(
            case event_type
                {%- for step in funnel_steps() %}
                    when '{{ step }}' then {{ loop.index }}
                {%- endfor %}
            end
        ) as funnel_depth
    from click_events
    group by session_id
),

-- An intent may be tried several times: the attempt that succeeded, else the last one.
attempts as (
    select
        merchant_id,
        charge_id,
        payment_intent_id,
        captured_amount_minor,
        row_number() over (
            partition by merchant_id, payment_intent_id
            order by
                case when charge_status = 'succeeded' then 0 else 1 end,
                created_at desc,
                charge_id desc
        ) as preference
    from charges
    where payment_intent_id is not null
),

facts as (
    select
        -- keys
        {{ surrogate_key(['sessions.session_id']) }} as session_key,
        sessions.session_id,
        {{ surrogate_key(['sessions.merchant_id']) }} as merchant_key,
        sessions.merchant_id,
        {{ customer_key_of('sessions.merchant_id', 'sessions.customer_id') }} as customer_key,
        case
            when attempts.charge_id is not null
                then {{ surrogate_key(["'oltp'", 'attempts.merchant_id', 'attempts.charge_id']) }}
        end as payment_key,
        sessions.payment_intent_id,
        {{ surrogate_key(['sessions.device_id']) }} as device_key,

        -- properties
        sessions.device_id,
        sessions.device_type,
        coalesce(sessions.ip_country, 'ZZ') as ip_country,
        sessions.utm_source,
        {{ name_of('events_by_session.funnel_depth', funnel_steps()) }} as deepest_step,

        -- flags
        sessions.has_converted,
        coalesce(attempts.captured_amount_minor > 0, false) as has_paid,
        events_by_session.event_count = 1 as is_bounce,

        -- times
        sessions.started_at,
        {{ utc_date('sessions.started_at') }} as started_on,
        sessions.ended_at,
        {{ seconds_between('sessions.started_at', 'sessions.ended_at') }} as duration_seconds,

        -- counts
        cast(coalesce(events_by_session.event_count, 0) as bigint) as event_count,
        cast(coalesce(events_by_session.page_count, 0) as bigint) as page_count,
        cast(coalesce(events_by_session.funnel_depth, 0) as integer) as funnel_depth,
        sessions.event_count as recorded_event_count,
        sessions.page_count as recorded_page_count,

        -- lineage
        sessions._batch_id
    from sessions
    left join events_by_session
        on sessions.session_id = events_by_session.session_id
    left join attempts
        on
            sessions.merchant_id = attempts.merchant_id
            and sessions.payment_intent_id = attempts.payment_intent_id
            and attempts.preference = 1
),

final as (
    {{ with_versions('facts', 'facts.started_at', ['merchant', 'customer']) }}
)

select * from final
