-- Refunded money of agg_revenue_daily is that of fct_refunds and of the payments that a file says were refunded, per
-- currency.
-- Returns the currencies where the sums differ.
with

refunded as (
    select
        currency,
        amount_minor,
        reporting_amount_minor
    from {{ ref('fct_refunds') }}
    where status not in ('failed', 'canceled')

    union all

    select
        currency,
        refunded_amount_minor as amount_minor,
        case when refunded_amount_minor > 0 then reporting_amount_minor end as reporting_amount_minor
    from {{ ref('fct_payments') }}
    where source = 'files'

    union all

    select
        currency,
        -refunded_amount_minor as amount_minor,
        -reporting_refunded_amount_minor as reporting_amount_minor
    from {{ ref('agg_revenue_daily') }}
),

final as (
    select
        currency,
        sum(amount_minor) as difference_minor,
        coalesce(sum(reporting_amount_minor), 0) as reporting_difference_minor
    from refunded
    group by currency
    having sum(amount_minor) <> 0 or coalesce(sum(reporting_amount_minor), 0) <> 0
)

select * from final
