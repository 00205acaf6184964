with

payments as (
    select * from {{ ref('int_payments_unioned') }}
),

sessions as (
    select * from {{ ref('stg_documents__sessions') }}
    where not is_deleted
),

sightings as (
    select
        device_id,
        device_type,
        paid_at as seen_at
    from payments

    union all

    select
        device_id,
        device_type,
        started_at as seen_at
    from sessions
),

-- Of what a device was taken for, the last word counts.
ranked as (
    select
        device_id,
        device_type,
        min(seen_at) over (partition by device_id) as first_seen_at,
        max(seen_at) over (partition by device_id) as last_seen_at,
        row_number() over (
            partition by device_id
            order by
                case when device_type is null then 1 else 0 end,
                seen_at desc,
                device_type desc
        ) as recency
    from sightings
    where device_id is not null
),

seen as (
    select
        {{ surrogate_key(['device_id']) }} as device_key,
        device_id,
        device_type,
        first_seen_at,
        last_seen_at,
        false as is_unknown
    from ranked
    where recency = 1
),

unknown as (
    select
        {{ unknown_key() }} as device_key,
        cast(null as text) as device_id,
        cast(null as text) as device_type,
        cast(null as timestamptz) as first_seen_at,
        cast(null as timestamptz) as last_seen_at,
        true as is_unknown
),

final as (
    select * from seen
    union all
    select * from unknown
)

select * from final
