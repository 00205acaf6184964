-- Which paths of the payments interface fail or are slow, in which version of it?
-- Available is what did not end in an error of ours (5xx). The worst day is that with most of these, the first of
-- equals; the 95th percentile (nearest rank) is in milliseconds.
with

requests as (
    select * from {{ ref('fct_api_requests') }}
),

totals as (
    select
        path,
        api_version,
        count(*) as request_count,
        sum(case when outcome = 'server_error' then 1 else 0 end) as server_error_count,
        sum(case when outcome = 'rate_limited' then 1 else 0 end) as rate_limited_count,
        sum(case when outcome = 'client_error' then 1 else 0 end) as client_error_count,
        sum(case when outcome = 'declined' then 1 else 0 end) as declined_count,
        percentile_disc(0.95) within group (order by latency_ms) as p95_latency_ms
    from requests
    group by path, api_version
),

days as (
    select
        path,
        api_version,
        occurred_on,
        row_number() over (
            partition by path, api_version
            order by count(*) desc, occurred_on asc
        ) as place
    from requests
    where outcome = 'server_error'
    group by path, api_version, occurred_on
),

final as (
    select
        totals.path,
        totals.api_version,
        totals.request_count,
        totals.server_error_count,
        totals.rate_limited_count,
        totals.client_error_count,
        totals.declined_count,
        {{ basis_points('(totals.request_count - totals.server_error_count)', 'totals.request_count') }}
            as availability_basis_points,
        totals.p95_latency_ms,
        days.occurred_on as worst_day
    from totals
    left join days
        on
            totals.path = days.path
            and totals.api_version = days.api_version
            and days.place = 1
)

select * from final
order by availability_basis_points, path, api_version
