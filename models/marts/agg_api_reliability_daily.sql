with

requests as (
    select * from {{ ref('fct_api_requests') }}
),

counted as (
    select
        occurred_on,
        merchant_key,
        api_version,
        path,
        count(*) as request_count,
        {%- for outcome in ['succeeded', 'declined', 'client_error', 'rate_limited', 'server_error'] %}
            cast(sum(case when outcome = '{{ outcome }}' then 1 else 0 end) as bigint) as {{ outcome }}_count,
        {%- endfor %}
        percentile_disc(0.50) within group (order by latency_ms) as latency_p50_ms,
        percentile_disc(0.95) within group (order by latency_ms) as latency_p95_ms,
        percentile_disc(0.99) within group (order by latency_ms) as latency_p99_ms
    from requests
    group by occurred_on, merchant_key, api_version, path
),

final as (
    select
        {{ surrogate_key(['occurred_on', 'merchant_key', 'api_version', 'path']) }} as api_reliability_daily_key,
        occurred_on,
        merchant_key,
        api_version,
        path,
        request_count,
        succeeded_count,
        declined_count,
        client_error_count,
        rate_limited_count,
        server_error_count,
        {{ share_of('request_count - server_error_count', 'request_count') }} as availability,
        latency_p50_ms,
        latency_p95_ms,
        latency_p99_ms
    from counted
)

select * from final
