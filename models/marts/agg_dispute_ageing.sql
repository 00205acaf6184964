with

disputes as (
    select * from {{ ref('fct_disputes') }}
),

clock as (
    select {{ as_of() }} as as_of_at
),

-- An open dispute ages until the as-of day, a closed one until it was closed.
aged as (
    select
        disputes.merchant_key,
        disputes.currency,
        disputes.status,
        disputes.is_open,
        disputes.amount_minor,
        disputes.reporting_amount_minor,
        case
            when
                disputes.status in ('needs_response', 'warning_needs_response')
                and disputes.evidence_due_at < clock.as_of_at
                then 1
            else 0
        end as is_evidence_overdue,
        coalesce({{ utc_date('disputes.closed_at') }}, {{ utc_date('clock.as_of_at') }})
        - disputes.opened_on as age_days
    from disputes
    cross join clock
),

bucketed as (
    select
        *,
        case
            when age_days <= 7 then '0-7'
            when age_days <= 30 then '8-30'
            when age_days <= 60 then '31-60'
            when age_days <= 90 then '61-90'
            else '90+'
        end as age_bucket
    from aged
),

final as (
    select
        {{ surrogate_key(['merchant_key', 'currency', 'status', 'age_bucket']) }} as dispute_ageing_key,
        merchant_key,
        currency,
        status,
        is_open,
        age_bucket,
        count(*) as dispute_count,
        cast(sum(is_evidence_overdue) as bigint) as evidence_overdue_count,
        cast(max(age_days) as integer) as oldest_age_days,
        cast(sum(amount_minor) as bigint) as amount_minor,
        cast(sum(reporting_amount_minor) as bigint) as reporting_amount_minor
    from bucketed
    group by merchant_key, currency, status, is_open, age_bucket
)

select * from final
