with

click_events as (
    select * from {{ ref('stg_documents__click_events') }}
    where not is_deleted
),

sessions as (
    select * from {{ ref('stg_documents__sessions') }}
    where not is_deleted
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

customer_versions as (
    select * from {{ ref('dim_customer_version') }}
),

-- Two events of one moment stand in the order of their ids, so that every build numbers them alike.
numbered as (
    select
        *,
        row_number() over (partition by session_id order by occurred_at, event_id) as event_no,
        lag(occurred_at) over (partition by session_id order by occurred_at, event_id) as previous_at
    from click_events
),

facts as (
    select
        -- keys
        {{ surrogate_key(['numbered.event_id']) }} as page_event_key,
        numbered.event_id,
        case
            when sessions.session_id is not null then {{ surrogate_key(['sessions.session_id']) }}
        end as session_key,
        numbered.session_id,
        {{ surrogate_key(['numbered.merchant_id']) }} as merchant_key,
        {{ customer_key_of('sessions.merchant_id', 'sessions.customer_id') }} as customer_key,

        -- properties
        numbered.event_type,
        numbered.page,
        cast(numbered.event_no as bigint) as event_no,
        numbered.event_no = 1 as is_first,

        -- times
        numbered.occurred_at,
        {{ utc_date('numbered.occurred_at') }} as occurred_on,
        {{ seconds_between('numbered.previous_at', 'numbered.occurred_at') }} as seconds_since_previous,

        -- lineage
        numbered._batch_id
    from numbered
    left join sessions
        on numbered.session_id = sessions.session_id
),

final as (
    {{ with_versions('facts', 'facts.occurred_at', ['merchant', 'customer']) }}
)

select * from final
