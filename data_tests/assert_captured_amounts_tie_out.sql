-- Captured money is the same to the minor unit in staging, in fct_payments and in agg_revenue_daily, per currency.
-- Returns the currencies where the sums differ.
with

staged as (
    select
        currency,
        amount_captured_minor as captured_amount_minor
    from {{ ref('stg_oltp__charges') }}
    where not is_deleted

    union all

    select
        currency,
        amount_minor as captured_amount_minor
    from {{ ref('stg_files__transactions') }}
    where
        not is_deleted
        and coalesce(status, 'succeeded') not in ('failed', 'pending')
),

sums as (
    select
        'staging' as layer,
        currency,
        captured_amount_minor
    from staged

    union all

    select
        'fact' as layer,
        currency,
        captured_amount_minor
    from {{ ref('fct_payments') }}

    union all

    select
        'aggregate' as layer,
        currency,
        captured_amount_minor
    from {{ ref('agg_revenue_daily') }}
),

by_currency as (
    select
        currency,
        sum(case when layer = 'staging' then captured_amount_minor else 0 end) as staged_minor,
        sum(case when layer = 'fact' then captured_amount_minor else 0 end) as fact_minor,
        sum(case when layer = 'aggregate' then captured_amount_minor else 0 end) as aggregate_minor
    from sums
    group by currency
),

final as (
    select * from by_currency
    where
        staged_minor <> fact_minor
        or staged_minor <> aggregate_minor
)

select * from final
