with

api_logs as (
    select * from {{ ref('stg_documents__api_logs') }}
    where not is_deleted
),

error_logs as (
    select * from {{ ref('stg_documents__error_logs') }}
    where not is_deleted
),

merchant_versions as (
    select * from {{ ref('dim_merchant_version') }}
),

-- A request may leave several errors: the gravest explains it, and of equals the first.
errors as (
    select
        request_id,
        error_id,
        service,
        severity,
        fingerprint,
        count(*) over (partition by request_id) as error_count,
        row_number() over (
            partition by request_id
            order by
                case severity when 'critical' then 1 when 'error' then 2 else 3 end,
                occurred_at,
                error_id
        ) as preference
    from error_logs
    where request_id is not null
),

judged as (
    select
        *,
        case
            when status_code >= 500 then 'server_error'
            when status_code = 429 then 'rate_limited'
            when status_code = 402 then 'declined'
            when status_code >= 400 then 'client_error'
            else 'succeeded'
        end as outcome
    from api_logs
),

facts as (
    select
        -- keys
        {{ surrogate_key(['judged.request_id']) }} as request_key,
        judged.request_id,
        {{ surrogate_key(['judged.merchant_id']) }} as merchant_key,
        judged.merchant_id,

        -- properties
        judged.method,
        judged.path,
        coalesce(judged.api_version, 'unknown') as api_version,
        judged.status_code,
        judged.error_code,
        judged.outcome,

        -- flags
        judged.outcome in ('client_error', 'rate_limited', 'server_error') as is_error,
        judged.outcome = 'declined' as is_decline,

        -- explanation
        errors.error_id,
        errors.service as error_service,
        errors.severity as error_severity,
        errors.fingerprint as error_fingerprint,
        cast(coalesce(errors.error_count, 0) as bigint) as logged_error_count,

        -- times
        judged.occurred_at,
        {{ utc_date('judged.occurred_at') }} as occurred_on,
        judged.latency_ms,

        -- lineage
        judged._batch_id
    from judged
    left join errors
        on
            judged.request_id = errors.request_id
            and errors.preference = 1
),

final as (
    {{ with_versions('facts', 'facts.occurred_at', ['merchant']) }}
)

select * from final
